"""Settings of the gateway's own listeners: addresses, TLS, and what clients may ask of them.

Keys keep the user's names (the alias); field names carry the stored unit. See `schema`.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StrictBool, ValidationInfo, field_validator

from router.settings.quantities import (
    COUNT,
    DURATION,
    GIB,
    HOUR_S,
    MIB,
    NUMBER,
    SIZE,
    Quantity,
    wrong,
)
from router.settings.section import Section
from router.settings.values import MAX_LIST_ITEMS, Address, FilePath, Text

HostName = Annotated[
    str,
    Text(
        r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}",
        "a name or an address, without scheme and port",
    ),
]


Origin = Annotated[
    str,
    Text(
        r"\*|[a-z][a-z0-9+.-]{0,30}://([a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?",
        "* or scheme://host[:port] in lower case, as browsers send it",
    ),
]


class Forwarded(StrEnum):
    """Who says to backends for whom a request is made: X-Forwarded-For, -Proto and their like."""

    KEEP = "keep"
    MAKE = "make"


class BackendHint(StrEnum):
    """Whether clients may ask for a backend with the `x-router-backend` header."""

    DENY = "deny"
    ALLOW = "allow"


class ServerTls(Section):
    """What makes the data port speak HTTPS (TLS 1.2 and newer)."""

    certificate: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None, description="PEM file of the certificate and its chain; empty: plain HTTP"
    )
    key: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None,
        validate_default=True,
        description="PEM file of its private key, not encrypted",
    )

    @field_validator("key")
    @classmethod
    def _both_or_none(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("certificate", value)
        if (value is None) != (certificate is None):
            missing = "key" if value is None else "certificate"
            raise wrong(f"needs server.tls.{missing} too: both or none")
        return value


class ServerCors(Section):
    """Which pages of other sites may read answers of the data port, in browsers."""

    origins: Annotated[tuple[Origin, ...], Field(max_length=MAX_LIST_ITEMS)] = Field(
        default=(),
        description="sites whose pages may call the data port from a browser; *: all; empty: none",
    )


class ServerSettings(Section):
    """The gateway's own listeners and bounds."""

    listen: Address = Field(
        default=Address("127.0.0.1", 8080),
        description="address of the data port (inference traffic)",
    )
    admin_listen: Address = Field(
        default=Address("127.0.0.1", 9090),
        validate_default=True,
        description="address of the admin port (health, metrics, status, reload); keep it private",
    )
    admin_hosts: Annotated[tuple[HostName, ...], Field(max_length=MAX_LIST_ITEMS)] = Field(
        default=(),
        description="names that the admin port is reached by, beside localhost and its addresses;"
        " requests for others are refused",
    )
    admin_token_file: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None,
        description="file of the token that the admin port asks for, all but /healthz, /readyz and"
        " /metrics; empty: none",
    )
    admin_metrics_token: StrictBool = Field(
        default=False, description="true: /metrics of the admin port asks for the token too"
    )
    tls: ServerTls = Field(
        default_factory=ServerTls,
        description="HTTPS on the data port; changed files are used from the next connection on",
    )
    cors: ServerCors = Field(default_factory=ServerCors, description="calls from pages in browsers")
    forwarded: Forwarded = Field(
        default=Forwarded.KEEP,
        description="X-Forwarded-For, -Proto and their like: keep passes on what the client sent,"
        " make says what the gateway sees itself, and drops what the client says",
    )
    processes: Annotated[int, Quantity(COUNT, 1, 64)] = Field(
        default=1, description="processes that share the data port, and count and size as one"
    )
    max_body_bytes: Annotated[int, Quantity(SIZE, 1024, 4 * GIB)] = Field(
        default=64 * MIB,
        alias="max_body",
        description="largest request body; larger ones are answered 413",
    )
    max_buffered_bytes: Annotated[int, Quantity(SIZE, 1024, 64 * GIB)] = Field(
        default=512 * MIB,
        validate_default=True,
        alias="max_buffered",
        description="bytes of all bodies and unfinished requests held at once; beyond it, 503",
    )
    max_header_bytes: Annotated[int, Quantity(SIZE, 1024, MIB)] = Field(
        default=8192,
        alias="max_header",
        description="largest request head, and chunk extensions and trailers; larger ones get 431",
    )
    body_timeout_s: Annotated[float, Quantity(DURATION, 0.1, HOUR_S)] = Field(
        default=30.0,
        alias="body_timeout",
        description="time a client has to send its body; once more for each MiB that has come",
    )
    drain_timeout_s: Annotated[float, Quantity(DURATION, 0.0, HOUR_S)] = Field(
        default=30.0,
        alias="drain_timeout",
        description="time requests in flight have to end at shutdown",
    )
    max_connections: Annotated[int, Quantity(COUNT, 1, 1_000_000)] = Field(
        default=16_384,
        description="client connections, of all processes together; one more is answered 503",
    )
    header_timeout_s: Annotated[float, Quantity(DURATION, 0.1, HOUR_S)] = Field(
        default=30.0,
        alias="header_timeout",
        description="time a client has to send a whole request head, its first one included",
    )
    keepalive_timeout_s: Annotated[float, Quantity(DURATION, 0.1, 24 * HOUR_S)] = Field(
        default=900.0,
        alias="keepalive_timeout",
        description="time an idle connection is kept; short ones lose clients' POST requests",
    )
    send_timeout_s: Annotated[float, Quantity(DURATION, 0.1, HOUR_S)] = Field(
        default=60.0,
        alias="send_timeout",
        description="time a client may go without reading an answer that waits for it",
    )
    backend_hint: BackendHint = Field(
        default=BackendHint.DENY,
        description="whether clients may force a backend with x-router-backend",
    )
    fast_path: StrictBool = Field(
        default=True,
        description="false: every request takes the ordinary path, for comparison and diagnosis",
    )
    access_log: Annotated[Path | Literal["stderr", "off"], FilePath(words=("stderr", "off"))] = (
        Field(default="stderr", description="where the one line per request goes")
    )
    access_log_max_bytes: Annotated[int, Quantity(SIZE, 64 * 1024, 1024 * GIB)] = Field(
        default=256 * MIB,
        alias="access_log_max",
        description="size at which the file is renamed (.1, .2, ...) and begun anew",
    )
    access_log_files: Annotated[int, Quantity(COUNT, 1, 1000)] = Field(
        default=4, description="renamed files that are kept; the oldest goes"
    )
    access_log_sample: Annotated[float, Quantity(NUMBER, 0.0, 1.0)] = Field(
        default=1.0,
        description="share of requests without an error that get a line; errors always do",
    )

    @field_validator("admin_listen")
    @classmethod
    def _ports_differ(cls, value: Address, info: ValidationInfo) -> Address:
        if value.port and value == info.data.get("listen"):
            raise wrong("must differ from server.listen")
        return value

    @field_validator("max_buffered_bytes")
    @classmethod
    def _one_body_fits(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("max_body_bytes", 0):
            raise wrong("must be at least server.max_body, or no such body could be held")
        return value
