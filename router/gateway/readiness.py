"""Whether this gateway should be given traffic, and what it waits for if not."""

from dataclasses import dataclass
from typing import Protocol

from router.backends.pool.endpoints import Pool
from router.runtime import ModelRuntime, RuntimeRef

DRAINING = "the gateway drains"


def can_serve(model: ModelRuntime, now: float, version: str | None = None) -> bool:
    """Whether a request for the model would find a backend, if need be after a start.

    A version is what replicas are known to have; those that do not say, and functions, have any.
    """
    pool, function = model.pool, model.serverless
    if function is not None and function.params.enabled and not function.circuit.is_open(now):
        return True
    return pool is not None and pool.params.enabled and _may_have(pool, version, now)


def _may_have(pool: Pool, version: str | None, now: float) -> bool:
    if version is None or not pool.ready:
        return pool.ready > 0 or pool.params.can_start
    # Also makes the replicas be asked for their versions, from the first such question on.
    return any(endpoint.serves(version) for endpoint in pool.rotation.serving(now, version))


class FunctionHost(Protocol):
    """What runs the functions of this machine."""

    @property
    def is_missing(self) -> bool:
        """Whether there are functions for it that cannot be called now."""
        ...


def missing_host(host: FunctionHost | None) -> list[str]:
    """What is to be said of the function host; nothing while it does its work."""
    is_missing = host is not None and host.is_missing
    return ["the local function host does not listen"] if is_missing else []


@dataclass(frozen=True, slots=True)
class Readiness:
    """What stands between a gateway and its traffic. `host` is None where it has another owner."""

    runtime: RuntimeRef
    host: FunctionHost | None

    def missing(self, now: float) -> list[str]:
        """Every reason not to be ready, in words.

        A model that has answered before counts as ready: what fails later is no reason to take
        every gateway out of rotation, for none of them would do better.
        """
        waiting = [
            f"model {model.name} has not answered yet, and none of its places can start"
            for model in self.runtime.current.models.values()
            if not (model.has_answered or can_serve(model, now))
        ]
        return missing_host(self.host) + waiting


def document(missing: list[str]) -> dict[str, object]:
    """The answer of `/readyz`."""
    return {"ready": False, "missing": missing} if missing else {"ready": True}
