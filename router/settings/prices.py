"""The price book: what a call and a replica cost, as dated facts.

The figures built in are those of `config/prices.yaml`; a prices file replaces all of them.
Which price a model gets is decided by `loader`.
"""

import datetime
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

from router.settings.quantities import MILLISECONDS, NUMBER, Quantity, wrong
from router.settings.section import Section
from router.settings.values import Described, Text

_RegionName = Annotated[str, Text(r"[a-z0-9-]{1,50}", "a region such as eu-central-1")]
_KindName = Annotated[str, Text(r"[a-z_]{1,50}", "a backend kind such as aws_lambda")]


def _day(value: object) -> datetime.date:
    if isinstance(value, datetime.date):
        return value
    try:
        return datetime.date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise wrong("must be a day such as 2026-11-01") from None


class FunctionPrice(Section):
    """What a call costs: a fee, and its billed time times its memory and CPUs."""

    usd_per_request: Annotated[float, Quantity(NUMBER, 0, 1)] = Field(
        description="USD for each call"
    )
    usd_per_gb_s: Annotated[float, Quantity(NUMBER, 0, 1)] = Field(
        description="USD for each second and GB of memory"
    )
    usd_per_vcpu_s: Annotated[float, Quantity(NUMBER, 0, 1)] = Field(
        default=0.0, description="USD for each second and virtual CPU, where CPUs are paid apart"
    )
    min_billed_s: Annotated[float, Quantity(MILLISECONDS, 0, 60_000)] = Field(
        default=0.0, alias="min_billed_ms", description="a call is billed for at least this long"
    )
    billing_step_s: Annotated[float, Quantity(MILLISECONDS, 0, 60_000)] = Field(
        default=0.0,
        alias="billing_step_ms",
        description="billed time is rounded up to a multiple of this; 0: it is not",
    )
    provisioned_usd_per_gb_s: Annotated[float, Quantity(NUMBER, 0, 1)] = Field(
        default=0.0,
        description="USD for each second and GB of provisioned concurrency, used or not",
    )
    provisioned_call_usd_per_gb_s: Annotated[float, Quantity(NUMBER, 0, 1)] = Field(
        default=0.0,
        description="USD for each second and GB of a call on provisioned concurrency",
    )
    managed_fee_ratio: Annotated[float, Quantity(NUMBER, 0, 10)] = Field(
        default=0.0, description="what managed instances cost above the instances' own price"
    )


class ProviderPrices(Section):
    """One provider's function prices."""

    default: FunctionPrice = Field(description="where no region is named below")
    regions: Mapping[_RegionName, FunctionPrice] = Field(
        default={}, max_length=200, description="prices of single regions"
    )


class ReplicaPrice(Section):
    """What a replica costs."""

    usd_per_replica_hour: Annotated[float, Quantity(NUMBER, 0, 10_000)] = Field(
        description="USD for one replica and hour"
    )


class PriceBook(Section):
    """All prices, by backend kind."""

    dated: Annotated[
        datetime.date, BeforeValidator(_day), Described("a day such as 2026-11-01")
    ] = Field(description="the day on which the prices were read")
    source: Annotated[str, Text(r".*", "text")] = Field(
        default="", description="where they were read"
    )
    serverless: Mapping[_KindName, ProviderPrices] = Field(
        default={}, max_length=100, description="function prices by kind"
    )
    pool: Mapping[_KindName, ReplicaPrice] = Field(
        default={}, max_length=100, description="replica prices by kind"
    )

    def function_price(self, kind: str, region: str | None) -> FunctionPrice | None:
        """The price in `region`, else the provider's default; None if the kind is not listed."""
        provider = self.serverless.get(kind)
        if provider is None:
            return None
        return provider.regions.get(region or "", provider.default)

    def usd_per_replica_hour(self, kind: str) -> float | None:
        """The price of a replica; None if the kind is not listed."""
        found = self.pool.get(kind)
        return None if found is None else found.usd_per_replica_hour


def built_in_prices() -> PriceBook:
    """The prices used when the configuration names no prices file."""
    function = FunctionPrice(usd_per_request=0.2e-6, usd_per_gb_s=0.0000166667)
    aws = FunctionPrice(
        usd_per_request=0.2e-6, usd_per_gb_s=0.0000166667,
        provisioned_usd_per_gb_s=0.0000041667, provisioned_call_usd_per_gb_s=0.0000097222,
        managed_fee_ratio=0.15,
    )  # fmt: skip
    provider = ProviderPrices(default=aws, regions={"us-east-1": aws})
    google = FunctionPrice(
        usd_per_request=0.4e-6, usd_per_gb_s=0.0000025, usd_per_vcpu_s=0.000024, billing_step_ms=100
    )
    azure = FunctionPrice(usd_per_request=0.2e-6, usd_per_gb_s=0.000016, min_billed_ms=100)
    replica = ReplicaPrice(usd_per_replica_hour=0.0363)
    return PriceBook(
        dated=datetime.date(2026, 11, 1),
        source=(
            "AWS Lambda and Amazon EC2 On-Demand (us-east-1), Google Cloud Run (request-based,"
            " tier 1) and Azure Functions (consumption) pricing pages, November 2026"
        ),
        serverless={
            "aws_lambda": provider,
            "google_function": ProviderPrices(default=google),
            "azure_function": ProviderPrices(default=azure),
            "local": ProviderPrices(default=function),
        },
        pool={"process": replica, "static": replica, "docker": replica, "kubernetes": replica},
    )
