"""Fills the prices that models leave out from the price book, before anything is validated.

Works on data of any shape: what it does not understand it returns as it is, and the schema refuses.
"""

from typing import Any

from router.settings.prices import PriceBook

Data = dict[str, Any]


def with_prices(data: object, prices: PriceBook) -> object:
    """A copy of the configuration in which every backend with a known kind has a price."""
    if not isinstance(data, dict):
        return data
    priced = dict(data)
    if isinstance(data.get("models"), list):
        priced["models"] = [_priced_model(model, prices) for model in data["models"]]
    if isinstance(data.get("pools"), dict):
        priced["pools"] = {
            name: _priced_pool(pool, prices) if isinstance(pool, dict) else pool
            for name, pool in data["pools"].items()
        }
    return priced


def _priced_model(model: object, prices: PriceBook) -> object:
    if not isinstance(model, dict):
        return model
    priced = dict(model)
    if isinstance(model.get("serverless"), dict):
        priced["serverless"] = _priced_function(model["serverless"], prices)
    if isinstance(model.get("pool"), dict):
        priced["pool"] = _priced_pool(model["pool"], prices)
    return priced


def _priced_function(function: Data, prices: PriceBook) -> Data:
    found = prices.function_price(str(function.get("kind")), str(function.get("region")))
    given = function.get("price") or {}
    if found is None or not isinstance(given, dict):
        return function
    return {**function, "price": {**found.model_dump(mode="json", by_alias=True), **given}}


def _priced_pool(pool: Data, prices: PriceBook) -> Data:
    usd = prices.usd_per_replica_hour(str(pool.get("kind")))
    return pool if usd is None else {"price_per_replica_hour": usd, **pool}
