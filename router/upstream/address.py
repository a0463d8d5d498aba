"""Where an upstream listens: parsed once from configuration, then used as a key.

Decides what an upstream URL may look like. Never resolves a name and never opens a socket.
"""

import re
import ssl
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True, slots=True, eq=False)
class Address:
    """One upstream: a TCP host and port, or a Unix socket.

    Two addresses are equal, and share connections, when they have the same `url` and TLS context.
    `host_header` is what goes into the Host header unless the call brings its own, `server_name`
    what a certificate must be for where that is not the host.
    """

    url: str
    host_header: str
    host: str = ""
    port: int = 0
    unix_path: str | None = None
    tls: bool = False
    ssl_context: ssl.SSLContext | None = None
    server_name: str = ""
    _hash: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.url, self.ssl_context)))

    def __hash__(self) -> int:
        """Worked out once: connections are looked up by it for every request."""
        return self._hash

    def __eq__(self, other: object) -> bool:
        """As said above; quickly, for the same reason."""
        if not isinstance(other, Address):
            return NotImplemented
        return self.url == other.url and self.ssl_context == other.ssl_context

    def at(self, ip: str) -> "Address":
        """One of the places that this address's name stands for; it is called by the name."""
        return replace(self, url=f"{self.url}@{ip}", host=ip, server_name=self.host)


def parse_address(url: str, ssl_context: ssl.SSLContext | None = None) -> Address:
    """Read `http://host[:port]`, `https://host[:port]` or `unix:/path`.

    `ssl_context` replaces the default one (which verifies against the system's authorities).
    Raises ValueError, with the URL and what is wrong with it, for anything else.
    """
    if url.startswith("unix:"):
        return _parse_unix(url, ssl_context)
    parts, port = _split(url)
    _reject_extras(url, parts, ssl_context)
    host_text = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc.rstrip(":")
    if not _HOST.fullmatch(host_text):
        raise ValueError(f"{url!r}: the host must be an ASCII name or an IP address")
    host = host_text.strip("[]").lower()
    host_header = host_text.lower()
    if port is not None and port != _DEFAULT_PORTS[parts.scheme]:
        host_header = f"{host_header}:{port}"
    return Address(
        url=f"{parts.scheme}://{host_header}",
        host_header=host_header,
        host=host,
        port=port or _DEFAULT_PORTS[parts.scheme],
        tls=parts.scheme == "https",
        ssl_context=ssl_context,
    )


def _parse_unix(url: str, ssl_context: ssl.SSLContext | None) -> Address:
    path = url.removeprefix("unix:")
    if not path.startswith("/") or path.startswith("//") or "\0" in path:
        raise ValueError(f"{url!r}: a Unix socket is written unix:/absolute/path")
    if ssl_context is not None:
        raise ValueError(f"{url!r}: TLS is not spoken over Unix sockets")
    return Address(url=url, host_header="localhost", unix_path=path)


def _split(url: str) -> tuple[SplitResult, int | None]:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r}: an upstream URL is printable ASCII without spaces")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from error
    if port == 0:
        raise ValueError(f"{url!r}: the port must be in 1-65535")
    return parts, port


def _reject_extras(url: str, parts: SplitResult, ssl_context: ssl.SSLContext | None) -> None:
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{url!r}: must start with http://, https:// or unix:/")
    if "@" in parts.netloc:
        raise ValueError(f"{url!r}: credentials do not belong into an upstream URL")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(f"{url!r}: only scheme, host and port; the path comes with each request")
    if ssl_context is not None and parts.scheme != "https":
        raise ValueError(f"{url!r}: a TLS context needs https://")
