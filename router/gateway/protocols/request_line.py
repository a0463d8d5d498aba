"""A request's target -> the segments of its path. Knows no protocol."""

import re
from urllib.parse import unquote

from router.domain.errors import InvalidRequestError

_AUTHORITY = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


def origin_form(target: str) -> str:
    """Path and query of a request target: clients of a proxy name scheme and authority as well."""
    authority = _AUTHORITY.match(target)
    if authority is None:
        return target
    rest = target[authority.end() :]
    return rest if rest.startswith("/") else "/" + rest


def segments_of(path: str) -> list[str]:
    """The decoded segments of a raw path. Raises InvalidRequestError for what is not text."""
    try:
        segments = [unquote(part, errors="strict") for part in path.split("/")[1:]]
    except UnicodeDecodeError:
        raise InvalidRequestError("the path is not valid UTF-8") from None
    if any(not segment.isprintable() for segment in segments):
        raise InvalidRequestError("the path contains control characters")
    return segments
