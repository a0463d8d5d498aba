"""What is watched of OpenAI-shaped requests and answers: lengths, counts and how they ended. Pure.

No text is kept. Streams are read event by event.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from zlib import crc32

import msgspec

from router.quality.features import Features
from router.quality.tensors import Answer, UnreadableAnswerError

_EVENT = b"data:"
_DONE = b"[DONE]"
_COUNTS = ("prompt_tokens", "completion_tokens")
_ASKED = ("messages", "prompt", "input")
_SAID = ("content", "text", "reasoning_content")


def read_text(request: bytes, answer: Answer) -> tuple[Features, str]:
    """Lengths and counts of one exchange, and the answer's id. Raises UnreadableAnswerError."""
    if answer.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise UnreadableAnswerError("the answer is compressed")
    try:
        asked = msgspec.json.decode(request)
        said = list(_documents(answer))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableAnswerError(str(error)) from error
    if not isinstance(asked, dict):
        raise UnreadableAnswerError("the request is not an object")
    ids = [
        each["id"] for each in said if isinstance(each, dict) and isinstance(each.get("id"), str)
    ]
    return {**_of_request(asked), **_of_answer(said)}, ids[0] if ids else ""


def _documents(answer: Answer) -> Iterator[Any]:
    if not answer.headers.get("content-type", "").lower().startswith("text/event-stream"):
        yield msgspec.json.decode(answer.body)
        return
    for line in answer.body.splitlines():
        event = line.removeprefix(_EVENT).strip()
        if line.startswith(_EVENT) and event and event != _DONE:
            yield msgspec.json.decode(event)


def _of_request(asked: Mapping[str, Any]) -> Features:
    found: Features = {}
    for name in _ASKED:
        if name in asked:
            found["in:characters"] = float(_characters(asked[name]))
            found["in:messages"] = float(len(asked[name]) if isinstance(asked[name], list) else 1)
    for name in ("max_tokens", "temperature"):
        value = asked.get(name)
        if isinstance(value, int | float) and abs(value) < 1e15:
            found[f"in:{name}"] = float(value)
    return found


def _of_answer(said: list[Any]) -> Features:
    found: Features = {}
    characters, is_text = 0, False
    for document in said:
        if not isinstance(document, dict):
            continue
        usage = document.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        for name in _COUNTS:
            count = counts.get(name)
            if isinstance(count, int) and 0 <= count < 2**53:
                found[f"out:{name}"] = float(count)
        choices = document.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                is_text = True
                characters += sum(_characters(part) for part in _parts(choice))
                reason = choice.get("finish_reason")
                if isinstance(reason, str):
                    found["out:finish_reason#hash"] = float(crc32(reason.encode(errors="replace")))
    if is_text:
        found["out:characters"] = float(characters)
    return found


def _parts(choice: Mapping[str, Any]) -> Iterator[Any]:
    for place in (choice, choice.get("message"), choice.get("delta")):
        if isinstance(place, dict):
            yield from (place[name] for name in _SAID if name in place)


def _characters(value: Any) -> int:  # noqa: ANN401 - decoded JSON
    """How long all the strings in it are together."""
    total, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, list):
            rest.extend(item)
        elif isinstance(item, dict):
            rest.extend(item.get(name) for name in ("content", "text"))
    return total
