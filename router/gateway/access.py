"""Who may call: API key, allowed models, rate limit. Pure but for the limiter's bucket."""

from fnmatch import fnmatchcase

from router.domain.errors import ForbiddenError, RateLimitedError, UnauthorizedError
from router.gateway.responses import not_found_model
from router.runtime import ModelRuntime, Runtime
from router.settings.keys import ApiKey


def identify(runtime: Runtime, key: str | None) -> ApiKey | None:
    """The caller behind a key; None where everybody may call. Raises UnauthorizedError."""
    if runtime.keys.is_open:
        return None
    if key is None:
        raise UnauthorizedError("an API key is needed: send it as Authorization: Bearer KEY")
    caller = runtime.keys.find(key)
    if caller is None:
        raise UnauthorizedError("the API key is not known")
    return caller


def may_use(caller: ApiKey, model: str) -> bool:
    """Whether the caller's key is for this model."""
    return not caller.models or any(fnmatchcase(model, pattern) for pattern in caller.models)


def models_of(runtime: Runtime, caller: ApiKey | None) -> list[ModelRuntime]:
    """The models that the caller may use, and may know of."""
    models = runtime.models.values()
    return [model for model in models if caller is None or may_use(caller, model.name)]


def model_for(runtime: Runtime, caller: ApiKey | None, name: str) -> ModelRuntime:
    """The model of that name. Raises ForbiddenError or ModelNotFoundError.

    Forbidden is also what does not exist, or a key would tell which models others have.
    """
    if caller is not None and not may_use(caller, name):
        raise ForbiddenError(f"the API key may not use model {name[:200]!r}")
    model = runtime.models.get(name)
    if model is None:
        raise not_found_model(name)
    return model


def stand_ins(runtime: Runtime, caller: ApiKey | None, model: ModelRuntime) -> list[ModelRuntime]:
    """The model's fallbacks that the caller may use, in their order."""
    names = model.settings.fallback
    return [runtime.models[name] for name in names if caller is None or may_use(caller, name)]


def admit(runtime: Runtime, caller: ApiKey | None, now: float) -> None:
    """Take one request of the caller's rate. Raises RateLimitedError."""
    if caller is None:
        return
    wait_s = runtime.over_limit_s(caller, now)
    if wait_s > 0:
        raise RateLimitedError(
            f"you are over your limit of {caller.rate_per_s:g} requests per second", wait_s
        )
