"""KServe's V1 protocol: lists, readiness and `:predict`.

`/v1/models` is also OpenAI's: those answers carry both shapes.
"""

from router.domain.errors import NotFoundError
from router.domain.request import Protocol
from router.gateway.access import model_for, models_of
from router.gateway.target import Document, Target, can_serve, require
from router.runtime import Runtime
from router.settings.keys import ApiKey

_ACTION = "predict"
_PREDICT = f":{_ACTION}"


def resolve(
    method: str, segments: list[str], runtime: Runtime, caller: ApiKey | None, now: float
) -> Target | Document:
    """What the path (segments after `v1/models`) asks for. Raises NotFoundError and its like."""
    match segments:
        case []:
            require(method, "GET")
            names = [model.name for model in models_of(runtime, caller)]
            entries = [_entry(name) for name in names]
            return Document({"models": names, "object": "list", "data": entries})
        case [name] if name.endswith(_PREDICT):
            require(method, "POST")
            return Target(Protocol.KSERVE_V1, _ACTION, name.removesuffix(_PREDICT))
        case [name]:
            require(method, "GET")
            model = model_for(runtime, caller, name)
            return Document({"name": name, "ready": can_serve(model, now), **_entry(name)})
        case _:
            raise NotFoundError("this path is not part of the KServe V1 protocol")


def _entry(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "hybrid-router"}
