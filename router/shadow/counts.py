"""What has become of a shadow's copies; kept by the shadow's name, through reloads."""

from dataclasses import dataclass, field
from enum import StrEnum

from router.quality.keeping import ByteBudget


class CopyResult(StrEnum):
    """What became of a request that the shadow was to get."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    BUSY = "busy"
    TOO_LARGE = "too_large"


class ComparisonResult(StrEnum):
    """What a comparison of two answers found; `skipped` where one was not kept."""

    MATCH = "match"
    MISMATCH = "mismatch"
    SKIPPED = "skipped"


@dataclass(slots=True)
class ShadowCounts:
    """One shadow: its copies under way, the bytes they keep, and what was found so far."""

    in_flight: int = 0
    bytes: ByteBudget = field(default_factory=ByteBudget)
    copies: dict[CopyResult, int] = field(default_factory=lambda: dict.fromkeys(CopyResult, 0))
    comparisons: dict[ComparisonResult, int] = field(
        default_factory=lambda: dict.fromkeys(ComparisonResult, 0)
    )
    max_difference: float = 0.0
    last_mismatch: str | None = None
