"""What a function that streams sends through AWS: frames of `vnd.amazon.eventstream`."""

import json
from base64 import b64encode
from struct import pack
from typing import Any
from zlib import crc32


def frame(payload: bytes, headers: dict[str, bytes]) -> bytes:
    """One message; header values are whole, with their type."""
    told = b"".join(bytes([len(name)]) + name.encode() + value for name, value in headers.items())
    prelude = pack(">II", 16 + len(told) + len(payload), len(told))
    message = prelude + pack(">I", crc32(prelude)) + told + payload
    return message + pack(">I", crc32(message))


def text(value: str) -> bytes:
    """A header's value that is a string."""
    return b"\x07" + pack(">H", len(value)) + value.encode()


def event(kind: str, payload: bytes) -> bytes:
    """An event."""
    return frame(payload, {":message-type": text("event"), ":event-type": text(kind)})


def chunk(payload: bytes) -> bytes:
    """A piece of what the function wrote."""
    return event("PayloadChunk", payload)


def head(status: int = 200, **headers: str) -> bytes:
    """What HttpResponseStream.from writes first."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return json.dumps({"statusCode": status, "headers": named}).encode() + bytes(8)


def complete(log: str = "", **error: Any) -> bytes:
    """The end of an invocation."""
    told = {"LogResult": b64encode(log.encode()).decode(), **error}
    return event("InvokeComplete", json.dumps(told).encode())
