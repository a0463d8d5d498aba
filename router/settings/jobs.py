"""Settings of jobs: calls that are answered later, and batches of them.

Keys keep the user's names (the alias); field names carry the stored unit. See `schema`.
"""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from router.settings.deliveries import DeliveriesSettings
from router.settings.extras import needs_extra
from router.settings.quantities import COUNT, DURATION, GIB, HOUR_S, MIB, SIZE, Quantity
from router.settings.redis_address import RedisAddress
from router.settings.section import Section
from router.settings.values import FilePath, Url

_MOST_S = 24 * HOUR_S


def _needs_obstore(url: str) -> str:
    return needs_extra("obstore", "objects")(url) if url else url


class JobsSettings(Section):
    """Calls that are answered later, and batches."""

    directory: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None,
        description="folder of the journal, of payloads and of answers; empty: no jobs are taken",
    )
    redis_url: Annotated[str, RedisAddress()] = Field(
        default="",
        description="Redis that keeps the jobs of several gateways, which then share the"
        " directory too; it needs appendonly yes. Empty: a journal in the directory",
    )
    objects: Annotated[str, Url(("s3", "gs", "az"), empty=True), AfterValidator(_needs_obstore)] = (
        Field(
            default="",
            description="bucket of payloads, answers and files, such as s3://bucket/prefix; its"
            " credentials are those of the process. Empty: a folder in the directory",
        )
    )
    window_s: Annotated[float, Quantity(DURATION, 1.0, 30 * _MOST_S)] = Field(
        default=HOUR_S, alias="window", description="time in which a call is done that states none"
    )
    concurrency: Annotated[int, Quantity(COUNT, 1, 10_000)] = Field(
        default=16, description="most jobs of one model in flight, of each gateway process"
    )
    attempts: Annotated[int, Quantity(COUNT, 1, 100)] = Field(
        default=3, description="times that a job is begun before it is a dead letter"
    )
    lease_s: Annotated[float, Quantity(DURATION, 1.0, HOUR_S)] = Field(
        default=10.0,
        alias="lease",
        description="time after which the jobs of a gateway that is silent are begun again",
    )
    retention_s: Annotated[float, Quantity(DURATION, 60.0, 365 * _MOST_S)] = Field(
        default=_MOST_S * 7, alias="retention",
        description="time that answers, batches and files are kept",
    )  # fmt: skip
    max_jobs: Annotated[int, Quantity(COUNT, 1, 10_000_000)] = Field(
        default=100_000, description="most jobs of one tenant that have not ended"
    )
    max_bytes: Annotated[int, Quantity(SIZE, MIB, 1024 * GIB)] = Field(
        default=4 * GIB,
        description="most bytes kept of one tenant's files, and as many of bodies and answers of"
        " its jobs; over it, nothing new of it is taken (429)",
    )
    max_file: Annotated[int, Quantity(SIZE, 1024, 64 * GIB)] = Field(
        default=256 * MIB, description="longest file of a batch; longer ones are answered 413"
    )
    max_files: Annotated[int, Quantity(COUNT, 1, 1_000_000)] = Field(
        default=1000, description="most files of one tenant"
    )
    max_batches: Annotated[int, Quantity(COUNT, 1, 10_000)] = Field(
        default=20, description="most batches of one tenant that have not ended"
    )
    deliveries: DeliveriesSettings = Field(
        default_factory=DeliveriesSettings, description="who is told what came of a call"
    )
