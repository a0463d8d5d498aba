"""Which Redis a URL means: one server, the master that sentinels name, or a cluster.

    redis://USER:PASSWORD@HOST:PORT/DATABASE
    redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE/DATABASE
    redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT
    unix:///PATH

With `rediss` for TLS, and as options `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` (paths);
`sentinel_username` and `sentinel_password` where sentinels want them. Pure: connects to nothing.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

MAX_HOSTS = 16
_OPTIONS = frozenset({"db", "protocol", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_SCHEMES = frozenset({"redis", "rediss"})


class Topology(StrEnum):
    """Who is asked for the server that has the keys."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_PORTS = {Topology.SENTINEL: 26379, Topology.CLUSTER: 6379}


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A URL that was understood.

    `single` is one for a single server, with the login, the database and TLS of all. `hosts` are
    those to ask, `service` is the name of the master; both are empty for a single server.
    """

    topology: Topology
    single: str = field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)

    def namespace(self, name: str) -> str:
        """The namespace whose keys one server has: in a cluster, those in braces share a slot."""
        return f"{{{name}}}" if self.topology is Topology.CLUSTER else name


def parse_redis_url(text: str) -> RedisUrl:
    """Raises ValueError, whose words name what is wrong and quote nothing of the URL."""
    parts = _split(text)
    scheme, _, of = parts.scheme.partition("+")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.fragment:
        raise ValueError("a Redis URL has no fragment")
    if parts.scheme == "unix" and parts.path:
        _known(options)
        return RedisUrl(Topology.SINGLE, text)
    if scheme not in _SCHEMES or of not in {"", Topology.SENTINEL, Topology.CLUSTER}:
        raise ValueError("not a Redis URL")
    if not of:
        _known(options)
        if not parts.hostname or parts.port == 0:
            raise ValueError("not a Redis URL: it has no host, or the port 0")
        return RedisUrl(Topology.SINGLE, text)
    topology = Topology(of)
    return _several(parts, scheme, topology, options)


def _several(
    parts: SplitResult, scheme: str, topology: Topology, options: dict[str, str]
) -> RedisUrl:
    login, at, netloc = parts.netloc.rpartition("@")
    hosts = tuple(_host(each, _PORTS[topology]) for each in netloc.split(","))
    if len(hosts) > MAX_HOSTS:
        raise ValueError(f"a Redis URL has at most {MAX_HOSTS} hosts")
    path = [unquote(each) for each in parts.path.split("/")[1:] if each]
    own = ("", "")
    service, database = "", ""
    if topology is Topology.SENTINEL:
        own = (options.pop(_SENTINEL_OPTIONS[0], ""), options.pop(_SENTINEL_OPTIONS[1], ""))
        if not path:
            raise ValueError("a Redis URL of sentinels ends with the name of their master")
        service, path = path[0], path[1:]
    if topology is Topology.SENTINEL and path and path[0].isdecimal():
        database, path = path[0], path[1:]
    if path:
        raise ValueError("a Redis URL has no such path: a cluster has one database only")
    _known(options)
    # The host is never used: those that are asked name another one.
    single = urlunsplit((scheme, f"{login}{at}unused", f"/{database}", urlencode(options), ""))
    return RedisUrl(topology, single, hosts, service, *own)


def _known(options: dict[str, str]) -> None:
    if unknown := sorted(set(options) - _OPTIONS):
        raise ValueError(f"a Redis URL has no option {unknown[0][:50]!r}")


def _host(text: str, port: int) -> tuple[str, int]:
    split = _split(f"//{text}")
    if not split.hostname or split.port == 0 or "@" in text:
        raise ValueError("not a Redis URL: it has no host, or the port 0")
    return split.hostname, split.port or port


def _split(text: str) -> SplitResult:
    """The parts of a URL. The library's own words may quote a password, so they are not told."""
    try:
        parts = urlsplit(text)
        if "," not in parts.netloc:
            _ = parts.port  # raises ValueError for what is none
    except ValueError:
        raise ValueError("not a Redis URL: its host or port is none") from None
    return parts
