"""The lines of a batch: what is asked in one, what is wrong with it, and what is answered."""

import base64
from collections.abc import AsyncIterator

import msgspec

from router.domain.errors import InvalidRequestError
from router.jobs.records import Job, Result, State

MAX_CUSTOM_ID_CHARS = 512


class Line(msgspec.Struct, frozen=True):
    """One request of a batch; its body stays as it is."""

    custom_id: str
    url: str
    body: msgspec.Raw
    method: str = "POST"


class Placed(msgspec.Struct, frozen=True):
    """A line of a file: its number from 1, where it begins, and its bytes (None: too many)."""

    number: int
    start: int
    content: bytes | None
    length: int


async def lines_of(parts: AsyncIterator[bytes], most_bytes: int) -> AsyncIterator[Placed]:
    """The lines of a file that are not empty; one at a time, and no longer than that, is held."""
    number, start, held, length = 1, 0, bytearray(), 0
    async for part in parts:
        first, *others = part.split(b"\n")
        pieces = [first, *others]
        for at, piece in enumerate(pieces):
            length += len(piece)
            if length <= most_bytes:
                held += piece
            if at == len(pieces) - 1:
                break
            placed = _placed(number, start, held, length)
            if placed is not None:
                yield placed
            number, start, length = number + 1, start + length + 1, 0
            held.clear()
    placed = _placed(number, start, held, length)
    if placed is not None:
        yield placed


def _placed(number: int, start: int, held: bytearray, length: int) -> Placed | None:
    if length != len(held):
        return Placed(number, start, None, length)
    return Placed(number, start, bytes(held), length) if held.strip() else None


_LINE = msgspec.json.Decoder(Line)


def line_of(content: bytes, endpoint: str) -> Line:
    """What a line asks. Raises InvalidRequestError."""
    try:
        line = _LINE.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the line is no valid request: {error}") from None
    if not 0 < len(line.custom_id) <= MAX_CUSTOM_ID_CHARS:
        raise InvalidRequestError(f"custom_id must have 1..{MAX_CUSTOM_ID_CHARS} characters")
    if line.method != "POST":
        raise InvalidRequestError("method must be POST")
    if line.url != endpoint:
        raise InvalidRequestError(f"url must be the batch's endpoint, {endpoint}")
    if not bytes(line.body).lstrip().startswith(b"{"):
        raise InvalidRequestError("body must be an object")
    return line


def is_good(job: Job) -> bool:
    """Whether what came of a line belongs to the output; else to the errors."""
    return job.state is State.DONE


def answered(job: Job, body: bytes) -> bytes:
    """The line of the output or of the errors that tells what came of a line."""
    result = job.result or Result(cause=f"the request was {job.state}")
    response = error = None
    if result.status:
        response = {
            "status_code": result.status,
            "request_id": result.request_id,
            "body": embedded(body),
        }
    if not is_good(job):
        message = result.cause or f"the answer had status {result.status}"
        error = {"code": _code(job), "message": message, "line": job.line}
    document = {
        "id": f"batch_req_{job.id}",
        "custom_id": job.spec.custom_id or None,
        "response": response,
        "error": error,
    }
    return msgspec.json.encode(document) + b"\n"


def _code(job: Job) -> str:
    match job.state:
        case State.EXPIRED:
            return "batch_expired"
        case State.CANCELLED:
            return "batch_cancelled"
        case _ if job.attempt == 0:
            return "invalid_line"
        case _:
            return "request_failed"


def embedded(body: bytes) -> object:
    """A body as a part of a line: JSON as it is, but without line ends; else text, or base64."""
    try:
        text = body.decode()  # what is only passed over below is not known to be UTF-8
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}
    try:
        if b"\n" in body or b"\r" in body:
            return msgspec.Raw(msgspec.json.format(body, indent=-1))
        return msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError:
        return text
