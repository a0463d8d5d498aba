"""What browsers are told of other sites' pages: whether they may send a request and read answers.

Says nothing about who may call: keys do that, and nobody but a browser asks. Pure.
"""

import re
from collections.abc import Mapping

from router.settings.server import ServerSettings

ORIGIN = "origin"
TOLD_HERE = "access-control-"
"""How the names of headers begin that the gateway says here, and no backend beside it."""

_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+([ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_FRESH_S = 600


def is_on(server: ServerSettings) -> bool:
    """Whether any page is to be told anything."""
    return bool(server.cors.origins)


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser asks if it may send a request, before it does."""
    return method == "OPTIONS" and "access-control-request-method" in headers


def cors_headers(
    server: ServerSettings, method: str, headers: Mapping[str, str]
) -> list[tuple[str, str]]:
    """What an answer to such a head says beside all else; nothing to pages that may not read it."""
    origins, origin = server.cors.origins, headers.get(ORIGIN)
    if origin is None or not ("*" in origins or origin in origins):
        return []
    told = [
        ("access-control-allow-origin", "*" if "*" in origins else origin),
        ("access-control-expose-headers", "*"),
        ("vary", ORIGIN),
    ]
    if is_preflight(method, headers):
        told.append(("access-control-allow-methods", "GET, HEAD, POST"))
        told.append(("access-control-max-age", str(_FRESH_S)))
        asked = headers.get("access-control-request-headers", "").strip(" \t")
        if _NAMES.fullmatch(asked):  # a star would leave out Authorization
            told.append(("access-control-allow-headers", asked))
    return told
