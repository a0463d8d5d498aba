"""Settings that every kind of function has: limits of its calls, their number, time and price.

Keys keep the user's names (the alias); field names carry the stored unit. See `schema`.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StrictBool, ValidationInfo, field_validator

from router.settings.prices import FunctionPrice
from router.settings.quantities import (
    COUNT,
    DURATION,
    GIB,
    HOUR_S,
    MIB,
    MILLISECONDS,
    SIZE,
    Quantity,
    wrong,
)
from router.settings.queue import QueueSettings
from router.settings.section import Section
from router.settings.values import FilePath

LAMBDA_PAYLOAD_BYTES = 6_291_556
LAMBDA_STREAM_BYTES = 200 * MIB
CLOUD_RUN_PAYLOAD_BYTES = 32 * MIB
AZURE_PAYLOAD_BYTES = 100_000_000


class FunctionLimits(Section):
    """Hard limits of a function; requests beyond them are never sent there."""

    max_payload_bytes: Annotated[int, Quantity(SIZE, 1024, GIB)] = Field(
        default=LAMBDA_PAYLOAD_BYTES, alias="max_payload",
        description="largest request after encoding (base64 adds a third to binary bodies)",
    )  # fmt: skip
    max_response_bytes: Annotated[int, Quantity(SIZE, 1024, GIB)] = Field(
        default=LAMBDA_PAYLOAD_BYTES,
        alias="max_response",
        description="largest response after encoding",
    )


class HttpLimits(Section):
    """Hard limits of a function that is called by URL; nothing is encoded."""

    max_payload_bytes: Annotated[int, Quantity(SIZE, 1024, 4 * GIB)] = Field(
        default=CLOUD_RUN_PAYLOAD_BYTES, alias="max_payload", description="largest request body"
    )
    max_response_bytes: Annotated[int, Quantity(SIZE, 1024, 4 * GIB)] = Field(
        default=CLOUD_RUN_PAYLOAD_BYTES, alias="max_response", description="largest response body"
    )


class AzureLimits(HttpLimits):
    """Hard limits of Azure Functions."""

    max_payload_bytes: Annotated[int, Quantity(SIZE, 1024, 4 * GIB)] = Field(
        default=AZURE_PAYLOAD_BYTES, alias="max_payload", description="largest request body"
    )
    max_response_bytes: Annotated[int, Quantity(SIZE, 1024, 4 * GIB)] = Field(
        default=AZURE_PAYLOAD_BYTES, alias="max_response", description="largest response body"
    )


class TlsSettings(Section):
    """Certificates for calls over https; files are read again when they change."""

    ca_file: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None, description="authorities to trust; empty: the system's"
    )
    cert_file: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None, description="client certificate for mutual TLS, with its chain"
    )
    key_file: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None, description="the client certificate's key; empty: it is in cert_file"
    )

    @field_validator("key_file")
    @classmethod
    def _key_has_a_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("cert_file", value) is None:
            raise wrong("needs cert_file: a key alone proves nothing")
        return value


class AnyFunction(Section):
    """What every serverless backend has."""

    enabled: StrictBool = Field(
        default=True, description="false: no request is sent to this backend"
    )
    memory_mb: Annotated[int, Quantity(COUNT, 128, 10_240)] = Field(
        default=1769, description="memory of one environment in MiB; the price follows it"
    )
    max_concurrency: Annotated[int, Quantity(COUNT, 1, 10_000)] = Field(
        default=20, description="most calls in flight at once"
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, 900.0)] = Field(
        default=30.0, alias="timeout", description="time limit of one call"
    )
    idle_s: Annotated[float, Quantity(DURATION, 1.0, 24 * HOUR_S)] = Field(
        default=300.0, alias="idle", description="an environment unused for this long is reclaimed"
    )
    queue: QueueSettings = Field(
        default_factory=QueueSettings, description="requests held until a call may be made"
    )
    price: FunctionPrice = Field(
        description="what a call costs", json_schema_extra={"default": "from the prices"}
    )
    service_time_s: Annotated[float, Quantity(MILLISECONDS, 0.01, 900_000)] = Field(
        default=0.05, alias="service_time_ms",
        description="expected time of a warm call until it has been measured",
    )  # fmt: skip
    cold_start_s: Annotated[float, Quantity(MILLISECONDS, 0, 900_000)] = Field(
        default=1.0, alias="cold_start_ms",
        description="expected extra time of a cold call until it has been measured",
    )  # fmt: skip


class RemoteFunction(AnyFunction):
    """What every function on somebody else's machines has."""

    connect_timeout_s: Annotated[float, Quantity(DURATION, 0.05, 60.0)] = Field(
        default=3.0, alias="connect_timeout", description="time to open a connection"
    )
    tls: TlsSettings = Field(
        default_factory=TlsSettings, description="certificates for calls over https"
    )
