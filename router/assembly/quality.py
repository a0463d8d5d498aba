"""Settings of a model's quality to what the quality room asks of them."""

from router.quality.drift import DriftParams
from router.quality.predictions import Reading, Task
from router.quality.samples import KeepParams, QualityParams
from router.settings.quality import KeepSettings, QualitySettings
from router.settings.schema import Settings


def watched(settings: Settings) -> dict[str, QualityParams]:
    """How each model is watched, of those that are."""
    found = {model.name: quality_params(model.quality) for model in settings.models}
    return {name: params for name, params in found.items() if params is not None}


def quality_params(settings: QualitySettings | None) -> QualityParams | None:
    """How a model is watched; None if it is not."""
    if settings is None:
        return None
    window, labels, baseline = settings.window, settings.labels, settings.baseline
    return QualityParams(
        share=settings.sample / 100,
        max_per_s=settings.max_per_s,
        max_bytes=settings.max_bytes,
        max_features=settings.max_features,
        reading=Reading(Task(settings.task), settings.output, settings.classes, settings.tolerance),
        drift=DriftParams(
            window.samples, window.max_s, settings.false_alarms_per_week, settings.least_psi
        ),
        first=baseline.first,
        baseline_file="" if baseline.file is None else str(baseline.file),
        ttl_s=labels.ttl_s,
        max_pending=labels.max_pending,
        keep=_keep(settings.keep),
    )


def _keep(keep: KeepSettings | None) -> KeepParams | None:
    if keep is None:
        return None
    return KeepParams(str(keep.folder), keep.max_bytes, keep.max_age_s, frozenset(keep.mask))
