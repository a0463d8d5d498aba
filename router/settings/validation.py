"""A document against a type of the schema: the value, or every problem with key, line and range.

Knows pydantic's error kinds and nothing of the files; pure.
"""

import difflib
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from router.settings.document import Document, MappingNode, Node, SequenceNode
from router.settings.problems import MAX_PROBLEMS, Problem, printable
from router.settings.shape import Annotation, Place, locate, union_members, unwrap, wanted

_SUGGESTIBLE_CHARS = 64


def validate(
    annotation: Annotation, data: object, document: Document, context: dict[str, Any]
) -> tuple[Any, list[Problem]]:
    """The validated value (None when there are problems) and the problems."""
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        return adapter.validate_python(data, context=context), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)[:MAX_PROBLEMS]
    problems = [_problem(annotation, detail, document) for detail in details]
    return None, [problem for problem in problems if problem is not None]


def _problem(root: Annotation, detail: ErrorDetails, document: Document) -> Problem | None:
    place = locate(root, detail["loc"])
    kind = detail["type"]
    if kind.startswith("union_tag"):
        members = ", ".join(union_members(unwrap(place.annotation)))
        if isinstance(document.node(place.path), MappingNode):
            return document.problem((*place.path, "kind"), f"must be one of {members}")
        return document.problem(place.path, wanted(place.annotation))
    if kind == "too_short" and _has_items(document.node(place.path), detail):
        return None
    path = place.path
    if kind == "extra_forbidden":
        path = (*path[:-1], detail["loc"][-1])  # as written, even if it is the name of a field
    return document.problem(path, _message(kind, place, detail))


def _has_items(node: Node | None, detail: ErrorDetails) -> bool:
    # pydantic counts only the valid items, and the invalid ones are told already.
    wanted_items = detail.get("ctx", {})["min_length"]
    return isinstance(node, SequenceNode) and len(node.items) >= wanted_items


def _message(kind: str, place: Place, detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    match kind:
        case "setting":
            return str(context["text"])
        case "missing":
            return f"is required, {wanted(place.annotation)}"
        case "extra_forbidden":
            return _unknown_key(str(detail["loc"][-1]), place.known_keys)
        case "too_short":
            return f"must have at least {context['min_length']} entries"
        case "too_long":
            return f"must have at most {context['max_length']} entries"
        case _:
            return wanted(place.annotation)


def _unknown_key(key: str, known: tuple[str, ...]) -> str:
    nearest = difflib.get_close_matches(key[:_SUGGESTIBLE_CHARS], known, n=1, cutoff=0.5)
    if nearest:
        return f"is not a known key, did you mean {printable(nearest[0])}?"
    return f"is not a known key, the known ones are {', '.join(known)}"
