"""Settings of deliveries: whom the gateway may tell what came of a call, how often, how long.

Keys keep the user's names (the alias); field names carry the stored unit. See `schema`.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated

from pydantic import Field, GetCoreSchemaHandler, StrictBool, ValidationInfo, field_validator
from pydantic_core import CoreSchema, core_schema

from router.settings.quantities import COUNT, DURATION, HOUR_S, NUMBER, Quantity, wrong
from router.settings.section import Section
from router.settings.values import MAX_LIST_ITEMS, FilePath, Text

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Networks:
    """A list of networks in CIDR notation, stored as a tuple."""

    range = f"a list of at most {MAX_LIST_ITEMS} networks such as 10.0.0.0/8 or fd00::/8"
    wanted = f"must be {range}"

    def read(self, value: object) -> tuple[Network, ...]:
        """`value` as networks; raises for what is none, and for bits below the mask."""
        items = value if isinstance(value, list | tuple) else None
        if items is None or len(items) > MAX_LIST_ITEMS:
            raise wrong(self.wanted)
        try:
            return tuple(ip_network(str(item)) for item in items)
        except ValueError:
            raise wrong(self.wanted) from None

    def __get_pydantic_core_schema__(self, _s: object, _h: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda networks: [str(network) for network in networks], when_used="json"
            ),
        )


HostGlob = Annotated[
    str,
    Text(r"[A-Za-z0-9*._:-]{1,253}", "a host name or address, or a glob such as *.example.com"),
]


class DeliveriesSettings(Section):
    """Who is told what came of a call: callbacks, and the sinks of triggers."""

    hosts: Annotated[tuple[HostGlob, ...], Field(max_length=MAX_LIST_ITEMS)] = Field(
        default=(),
        description="hosts that x-router-callback-url may name, exactly or as globs; empty: no"
        " callbacks are taken",
    )
    secret_file: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None,
        validate_default=True,
        description="file of the secrets (whsec_...) that messages are signed with, one a line, the"
        " new one first while they are changed; empty: they are not signed, and no callbacks taken",
    )
    private_networks: Annotated[tuple[Network, ...], Networks()] = Field(
        default=(), description="networks that messages may go to, besides public addresses"
    )
    allow_http: StrictBool = Field(
        default=False, description="true: also to http:// URLs, in clear; else to https:// alone"
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, 300.0)] = Field(
        default=10.0, alias="timeout", description="time that a receiver has to answer"
    )
    give_up_after_s: Annotated[float, Quantity(DURATION, 1.0, 30 * 24 * HOUR_S)] = Field(
        default=24 * HOUR_S,
        alias="give_up_after",
        description="time from the first try in which a message is tried again",
    )
    rate_per_s: Annotated[float, Quantity(NUMBER, 0.01, 10_000)] = Field(
        default=10.0, description="most messages per second to one host, of each gateway process"
    )
    per_host: Annotated[int, Quantity(COUNT, 1, 1000)] = Field(
        default=4, description="most messages in flight to one host, of each gateway process"
    )
    concurrency: Annotated[int, Quantity(COUNT, 1, 1000)] = Field(
        default=16, description="most messages in flight in all, of each gateway process"
    )

    @field_validator("secret_file")
    @classmethod
    def _callbacks_are_signed(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None and info.data.get("hosts"):
            raise wrong("is required where hosts may be called back: callbacks are signed")
        return value
