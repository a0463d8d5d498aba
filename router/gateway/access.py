"""Who may call: API key, allowed models, rate limit. Pure but for the limiter's bucket."""

from fnmatch import fnmatchcase

from router.domain.errors import ForbiddenError, RateLimitedError, UnauthorizedError
from router.runtime import Runtime
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


def admit(runtime: Runtime, caller: ApiKey | None, model: str, now: float) -> None:
    """Check the caller's models and take one request of its rate.

    Raises ForbiddenError or RateLimitedError.
    """
    if caller is None:
        return
    if not may_use(caller, model):
        raise ForbiddenError(f"the API key may not use model {model[:200]!r}")
    wait_s = runtime.over_limit_s(caller, now)
    if wait_s > 0:
        raise RateLimitedError(
            f"you are over your limit of {caller.rate_per_s:g} requests per second", wait_s
        )
