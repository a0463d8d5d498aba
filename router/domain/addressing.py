"""What may stand in the request path under which a backend knows a model and its version. Pure.

A path that goes upstream is always built (by `Protocol.path`) from what was understood of the
client's: a server behind us that reads a path in another way (decodes it twice, resolves `..`)
finds nothing to resolve.
"""

import re
from urllib.parse import quote

_NO_DOTS = r"(?!\.{1,2}(?:/|\Z))"
"""`.` and `..` are steps of a path and never names."""
_PART = _NO_DOTS + r"[A-Za-z0-9._:@-]+"
MODEL_NAME = rf"(?=.{{1,200}}\Z)(?!.*:predict\Z){_PART}(?:/{_PART})*"
VERSION = _NO_DOTS + r"[A-Za-z0-9._-]{1,100}"
_VERSION = re.compile(VERSION)
_QUERY = "!$&'()*+,;=:@/?%~"
"""What a query may hold unquoted beside letters and digits (RFC 3986 section 3.4)."""


def is_version(text: str) -> bool:
    """Whether that can be a model's version."""
    return _VERSION.fullmatch(text) is not None


def quoted(name: str) -> str:
    """A model's name or version as one segment of a path."""
    return quote(name, safe="")


def clean_query(query: str) -> str:
    """A query with everything quoted that does not belong into one, such as `#`."""
    return quote(query, safe=_QUERY, errors="surrogateescape")
