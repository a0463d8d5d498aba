"""Settings of watching a model's quality: what is sampled, compared, judged by labels, and kept."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

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
from router.settings.values import FilePath, Text, TextList


class TaskName(StrEnum):
    """What a model's answers are."""

    NONE = "none"
    CLASSIFICATION = "classification"
    REGRESSION = "regression"


class BaselineSettings(Section):
    """What a model is compared with."""

    file: Annotated[Path | None, FilePath(empty=True)] = Field(
        default=None,
        description="written by `hybrid-router quality baseline`; empty: each version's first",
    )
    first: Annotated[int, Quantity(COUNT, 100, 5000)] = Field(
        default=1000, description="samples of a version that make its baseline without a file"
    )

    @field_validator("file")
    @classmethod
    def _is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise wrong("is not a file")
        return value


class WindowSettings(Section):
    """The samples that are compared with the baseline at once."""

    samples: Annotated[int, Quantity(COUNT, 50, 100_000)] = Field(
        default=200, description="a window is complete with so many samples"
    )
    max_s: Annotated[float, Quantity(DURATION, 10.0, 7 * 24 * HOUR_S)] = Field(
        default=HOUR_S, alias="max", description="or after this time, if it has 50"
    )


class LabelSettings(Section):
    """Answers that wait until somebody says whether they were right."""

    ttl_s: Annotated[float, Quantity(DURATION, 1.0, 30 * 24 * HOUR_S)] = Field(
        default=24 * HOUR_S, alias="ttl", description="how long an answer waits for its label"
    )
    max_pending: Annotated[int, Quantity(COUNT, 1, 1_000_000)] = Field(
        default=20_000, description="answers that wait at once; the oldest go first"
    )


class KeepSettings(Section):
    """Samples on disk, as they were read."""

    folder: Annotated[Path, FilePath()] = Field(description="folder of JSON lines")
    max_bytes: Annotated[int, Quantity(SIZE, MIB, 1024 * GIB)] = Field(
        default=GIB, description="the oldest go where there are more"
    )
    max_age_s: Annotated[float, Quantity(DURATION, 60.0, 366 * 24 * HOUR_S)] = Field(
        default=7 * 24 * HOUR_S, alias="max_age", description="older ones go"
    )
    mask: Annotated[tuple[str, ...], TextList()] = Field(
        default=(), description="names of tensors whose values are not written"
    )


class QualitySettings(Section):
    """How a model's inputs, answers and labels are watched."""

    sample: Annotated[float, Quantity(NUMBER, 0.001, 100)] = Field(
        default=5, description="percent of the requests that are looked at"
    )
    max_per_s: Annotated[float, Quantity(NUMBER, 0.01, 10_000)] = Field(
        default=50, description="most that are looked at in a second (ten times as many at once)"
    )
    max_bytes: Annotated[int, Quantity(SIZE, 1, 16 * MIB)] = Field(
        default=256 * 1024, description="larger ones, request and answer together, are left out"
    )
    max_features: Annotated[int, Quantity(COUNT, 1, 1000)] = Field(
        default=64, description="numbers that are watched of each; further ones are left out"
    )
    task: TaskName = Field(
        default=TaskName.NONE,
        description="none: labels are scores; classification, regression: the output is understood",
    )
    output: Annotated[str, Text(r".{0,200}", "at most 200 characters")] = Field(
        default="", description="the output that holds the answer; empty: the first by name"
    )
    classes: Annotated[tuple[str, ...], TextList()] = Field(
        default=(), description="names of the classes in order; left out: their numbers"
    )
    tolerance: Annotated[float, Quantity(NUMBER, 0, 1e12)] = Field(
        default=0, description="of a regression: the error up to which an answer is right"
    )
    baseline: BaselineSettings = Field(
        default_factory=BaselineSettings, description="what the model is compared with"
    )
    window: WindowSettings = Field(
        default_factory=WindowSettings, description="what is compared at once"
    )
    false_alarms_per_week: Annotated[float, Quantity(NUMBER, 1e-6, 10)] = Field(
        default=0.05, description="expected number, of all features together, if nothing changes"
    )
    least_psi: Annotated[float, Quantity(NUMBER, 0, 10)] = Field(
        default=0.1, description="population stability index below which a change does not matter"
    )
    labels: LabelSettings = Field(
        default_factory=LabelSettings, description="answers that wait for `POST /v1/feedback`"
    )
    keep: KeepSettings | None = Field(
        default=None, description="absent: nothing of what clients send is stored"
    )

    @field_validator("classes")
    @classmethod
    def _are_different(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise wrong("must be different names")
        if value and info.data.get("task", TaskName.CLASSIFICATION) is not TaskName.CLASSIFICATION:
            raise wrong("needs task: classification")
        return value
