"""The models, as `/v1/models` lists them: in the shapes of KServe and of OpenAI at once."""

from router.gateway.access import may_use, model_for, models_of
from router.gateway.protocols.base import Document, Question, require
from router.gateway.readiness import can_serve

_MAX_PARTS = 100
"""A name of 200 characters has no more."""


def listed(question: Question, segments: list[str]) -> Document:
    """All models, or the one that these segments name. Raises ModelNotFoundError and its like."""
    require(question.method, "GET")
    if not segments:
        names = [model.name for model in models_of(question.runtime, question.caller)]
        entries = [_entry(name) for name in names]
        return Document({"models": names, "object": "list", "data": entries})
    name = "/".join(segments)
    model = model_for(question.runtime, question.caller, name)
    return Document({"name": name, "ready": can_serve(model, question.now), **_entry(name)})


def longest_name(question: Question, segments: list[str]) -> int:
    """How many of the segments are the name of a model, the longest one; 0 if there is none.

    Clients do not quote the slashes of a name. A caller learns nothing of models of others.
    """
    models, caller = question.runtime.models, question.caller
    for count in range(min(len(segments), _MAX_PARTS), 0, -1):
        name = "/".join(segments[:count])
        if name in models and (caller is None or may_use(caller, name)):
            return count
    return 0


def _entry(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "hybrid-router"}
