"""What a gateway says of the quality of its models, as it travels: sums, which add up.

A peer's word is checked like a client's. Raises nothing but BaselineError. Pure.
"""

import zlib
from collections.abc import Iterable
from hashlib import blake2b
from typing import Annotated

import msgspec
import numpy as np

from router.policy.canary import Side
from router.quality.drift import Baseline
from router.quality.evidence import Losses
from router.quality.files import MAX_FEATURES, BaselineError, encode
from router.quality.scores import CALIBRATION_BINS, MAX_PAIRS, SCORE_BINS, Mean, Scores

MAX_BYTES = 1 << 20
_MAX_PLAIN_BYTES = 8 << 20
_MAX_SUBJECTS = 1000

_Text = Annotated[str, msgspec.Meta(max_length=256)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
_Amount = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
_Cells = Annotated[list[_Count], msgspec.Meta(max_length=70)]
_Mean = tuple[_Count, _Amount, _Amount]
_Row = Annotated[
    list[_Amount], msgspec.Meta(min_length=CALIBRATION_BINS, max_length=CALIBRATION_BINS)
]
_ScoreRow = Annotated[list[_Count], msgspec.Meta(min_length=SCORE_BINS, max_length=SCORE_BINS)]
_MEANS = ("rewards", "log_loss", "brier", "absolute", "square", "relative")


class ScoresForm(msgspec.Struct):
    """Scores, as JSON."""

    means: Annotated[list[_Mean], msgspec.Meta(min_length=len(_MEANS), max_length=len(_MEANS))]
    pairs: Annotated[list[tuple[_Text, _Text, _Count]], msgspec.Meta(max_length=MAX_PAIRS + 2)]
    calibration: tuple[_Row, _Row, _Row] | None = None
    by_score: tuple[_ScoreRow, _ScoreRow] | None = None


class SubjectForm(msgspec.Struct):
    """One version at one gateway; `latest` counts the last window by the baseline's cells."""

    model: _Text
    version: _Text
    samples: _Count
    baseline: Annotated[str, msgspec.Meta(max_length=64)]
    latest: Annotated[dict[_Text, _Cells], msgspec.Meta(max_length=MAX_FEATURES)]
    drifting: Annotated[list[_Text], msgspec.Meta(max_length=MAX_FEATURES)]
    by_side: Annotated[dict[_Text, ScoresForm], msgspec.Meta(max_length=4)]


class RolloutForm(msgspec.Struct):
    """What labels have said of a canary at one gateway, by side."""

    rule: _Text
    epoch: _Text
    losses: dict[Side, tuple[_Count, Annotated[float, msgspec.Meta(ge=0, le=2**50)]]]


class WordForm(msgspec.Struct):
    """All that a gateway says."""

    subjects: Annotated[list[SubjectForm], msgspec.Meta(max_length=_MAX_SUBJECTS)]
    rollouts: Annotated[list[RolloutForm], msgspec.Meta(max_length=_MAX_SUBJECTS)]


_WORD = msgspec.json.Decoder(WordForm)


def heard(text: bytes) -> WordForm:
    """What a peer says. Raises BaselineError."""
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(text, _MAX_PLAIN_BYTES)
        if inflater.unconsumed_tail:
            raise BaselineError("it is too large when decompressed")
        return _WORD.decode(plain)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BaselineError(f"it is not what a gateway says: {error}") from error


def losses_of(words: Iterable[WordForm], rule: str, epoch: str) -> dict[Side, Losses]:
    """What all these gateways' labels say of a canary in that trial."""
    total = {side: Losses() for side in Side}
    for form in (each for word in words for each in word.rollouts):
        if (form.rule, form.epoch) == (rule, epoch):
            for side, (count, lost) in form.losses.items():
                total[side].count += count
                total[side].total += min(lost, float(count))
    return total


def name_of(baseline: Baseline | None) -> str:
    """What tells one baseline from another."""
    return "" if baseline is None else blake2b(encode(baseline), digest_size=8).hexdigest()


def scores_form(scores: Scores) -> ScoresForm:
    """Scores as they travel."""
    means = [getattr(scores, name) for name in _MEANS]
    has_calibration, has_scores = scores.calibration[0].any(), scores.by_score.any()
    return ScoresForm(
        [(mean.count, mean.total, mean.squares) for mean in means],
        [(truth, guess, count) for (truth, guess), count in scores.pairs.items()],
        tuple(scores.calibration.tolist()) if has_calibration else None,
        tuple(scores.by_score.tolist()) if has_scores else None,
    )


def scores_from(form: ScoresForm) -> Scores:
    """The scores that have travelled."""
    scores = Scores()
    for name, mean in zip(_MEANS, form.means, strict=True):
        setattr(scores, name, Mean(*mean))
    scores.pairs = {(truth, guess): count for truth, guess, count in form.pairs}
    if form.calibration is not None:
        scores.calibration = np.array(form.calibration)
    if form.by_score is not None:
        scores.by_score = np.array(form.by_score, np.int64)
    return scores
