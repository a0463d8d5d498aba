"""The request path under which a backend knows a model and its version. Pure; bodies are not seen.

A path that goes upstream is always built here, from what was understood of the client's: a server
behind us that reads a path in another way (decodes it twice, resolves `..`) finds nothing to
resolve. OpenAI's paths name no model: there the gateway changes the name in the body
(`gateway.openai`).
"""

import re
from urllib.parse import quote

from router.domain.request import Protocol

_NO_DOTS = r"(?!\.{1,2}(?:/|\Z))"
"""`.` and `..` are steps of a path and never names."""
_PART = _NO_DOTS + r"[A-Za-z0-9._-]+"
MODEL_NAME = rf"(?=.{{1,200}}\Z){_PART}(?:/{_PART})*"
VERSION = _NO_DOTS + r"[A-Za-z0-9._-]{1,100}"
_VERSION = re.compile(VERSION)
_QUERY = "!$&'()*+,;=:@/?%~"
"""What a query may hold unquoted beside letters and digits (RFC 3986 section 3.4)."""


def is_version(text: str) -> bool:
    """Whether that can be a model's version."""
    return _VERSION.fullmatch(text) is not None


def path_for(protocol: Protocol, action: str, model: str, version: str | None) -> str:
    """The raw path that asks for `action` of a model, in a version unless that is None.

    `action` is what stands after the model: `infer`, `config`, nothing for the metadata; with
    OpenAI it is what stands after `/v1`. KServe V1 has no versions: there the version is dropped.
    """
    name = quote(model, safe="")
    match protocol:
        case Protocol.OIP:
            versions = f"/versions/{quote(version, safe='')}" if version is not None else ""
            return f"/v2/models/{name}{versions}/{action}".rstrip("/")
        case Protocol.KSERVE_V1:
            return f"/v1/models/{name}:{action}"
        case Protocol.OPENAI:
            return f"/v1/{action}"


def clean_query(query: str) -> str:
    """A query with everything quoted that does not belong into one, such as `#`."""
    return quote(query, safe=_QUERY, errors="surrogateescape")
