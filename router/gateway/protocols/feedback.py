"""Labels that come late: `POST /v1/feedback` says whether answers were right.

One JSON object, or one on each line: `request_id` (the answer's `x-request-id`) or `id` (the one in
its body), and `label`, `score` (0..1) or `correct`. A tenant finds its own answers only, and is
told the same of others' as of those that never were.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from math import isfinite

import msgspec

from router.domain.errors import InvalidRequestError
from router.domain.request import AnswerForm
from router.gateway.protocols.base import (
    BodyQuestion,
    Document,
    Question,
    Target,
    WireProtocol,
    require,
)
from router.quality.pending import Kept
from router.quality.predictions import LabelError, truth_of
from router.quality.quality import MAX_ORPHAN_BYTES, LabelResult, Orphan, Quality
from router.quality.subject import Opinion

PATH = "/v1/feedback"
MAX_LINES = 1000
MAX_ID = 200
_SHOWN = 10


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """What is said of one answer; lists have an entry for each row of a batch."""

    request_id: str = ""
    id: str = ""
    label: str | int | float | list[str | int | float] | None = None
    score: float | list[float] | None = None
    correct: bool | list[bool] | None = None


class FeedbackProtocol(WireProtocol):
    """The gateway's own question about answers that it has given."""

    name = "feedback"
    answers = AnswerForm.TEXT

    def path(self, action: str, model: str, version: str | None) -> str:
        """Nothing of it goes to a backend."""
        del action, model, version
        return PATH

    def error_document(self, message: str, code: str, status: int) -> dict[str, object]:
        """The message, and the code for programs."""
        del status
        return {"error": message, "code": code}

    def owns(self, path: str, headers: Mapping[str, str]) -> bool:
        """Whether it is that one path."""
        del headers
        return path == PATH

    def resolve(self, question: Question) -> Target | Document | BodyQuestion:
        """Labels in the body. Raises MethodNotAllowedError."""
        require(question.method, "POST")
        tenant = question.caller.tenant if question.caller is not None else None
        return BodyQuestion(partial(_answer, question.runtime.quality, tenant))


FEEDBACK = FeedbackProtocol()

_DECODER = msgspec.json.Decoder(Feedback)


def _answer(quality: Quality, tenant: str | None, body: bytes) -> Document:
    """Count the labels. Raises InvalidRequestError if there is none, or one cannot be read."""
    entries = _entries(body)
    counts: Counter[LabelResult] = Counter()
    problems: list[str] = []
    for number, entry in enumerate(entries, 1):
        result, problem = _one(quality, tenant, entry, may_forward=True)
        counts[result] += 1
        if problem and len(problems) < _SHOWN:
            problems.append(f"{number}: {problem}")
    if len(entries) == counts[LabelResult.INVALID]:
        raise InvalidRequestError(f"no label could be used: {'; '.join(problems)}")
    said = {str(result): counts[result] for result in LabelResult}
    return Document({**said, "problems": problems})


def adopt(quality: Quality, orphan: Orphan) -> None:
    """Count a label that another gateway was told, if its answer is here."""
    try:
        entry = _DECODER.decode(orphan.entry)
    except (msgspec.MsgspecError, RecursionError):
        return  # not what a gateway of this kind has passed on
    if quality.pending.find(orphan.tenant, entry.request_id or entry.id, quality.now()):
        _one(quality, orphan.tenant, entry, may_forward=False)


def _entries(body: bytes) -> list[Feedback]:
    lines = [body] if b"\n" not in body.strip() else body.splitlines()
    lines = [line for line in lines if line.strip()]
    if not 1 <= len(lines) <= MAX_LINES:
        raise InvalidRequestError(f"the body needs 1..{MAX_LINES} labels, one a line")
    try:
        return [_DECODER.decode(line) for line in lines]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        whole = _whole(body)
        if whole is None:
            raise InvalidRequestError(f"a label cannot be read: {error}") from error
        return [whole]


def _whole(body: bytes) -> Feedback | None:
    """The body as one object over several lines."""
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _one(
    quality: Quality, tenant: str | None, entry: Feedback, *, may_forward: bool
) -> tuple[LabelResult, str]:
    given = entry.request_id or entry.id
    said = [each for each in (entry.label, entry.score, entry.correct) if each is not None]
    if not 1 <= len(given) <= MAX_ID or len(said) != 1:
        quality.labels["", LabelResult.INVALID] += 1
        return LabelResult.INVALID, "needs request_id or id, and one of label, score and correct"
    found = quality.pending.find(tenant, given, quality.now())
    if not found:
        line = msgspec.json.encode(entry)
        is_passed_on = may_forward and len(line) <= MAX_ORPHAN_BYTES
        is_passed_on = is_passed_on and quality.orphaned(tenant, line)
        result = LabelResult.FORWARDED if is_passed_on else LabelResult.UNKNOWN
        quality.labels["", result] += 1
        return result, ""
    results = [_said(quality, kept, entry) for kept in found]
    for kept, (result, _) in zip(found, results, strict=True):
        quality.labels[kept.origin.model, result] += 1
        if result is LabelResult.COUNTED:
            quality.pending.forget(kept)
    return results[0]


def _said(quality: Quality, kept: Kept, entry: Feedback) -> tuple[LabelResult, str]:
    try:
        opinions = opinions_of(quality, kept, entry)
    except LabelError as error:
        return LabelResult.INVALID, str(error)
    if not quality.label(kept, opinions):
        return LabelResult.BUSY, "too many labels wait to be counted: send it again"
    return LabelResult.COUNTED, ""


def opinions_of(quality: Quality, kept: Kept, entry: Feedback) -> list[Opinion]:
    """What is said of each row. Raises LabelError if that does not fit the answer."""
    params = quality.params(kept.origin.model)
    if params is None:
        raise LabelError("this model is not watched any more")
    if entry.label is not None:
        labels = entry.label if isinstance(entry.label, list) else [entry.label]
        if len(labels) != len(kept.predictions):
            raise LabelError(
                f"{len(labels)} labels of {len(kept.predictions)} answers that are kept"
            )
        return [Opinion(truth=truth_of(params.reading, label)) for label in labels]
    scores: list[float] = []
    for given in (entry.score, entry.correct):
        scores += [] if given is None else given if isinstance(given, list) else [given]
    if not all(isfinite(score) and 0 <= score <= 1 for score in scores):
        raise LabelError("a score is a number of 0..1")
    if len(scores) > max(1, len(kept.predictions)):
        raise LabelError(f"{len(scores)} scores of {len(kept.predictions)} answers that are kept")
    return [Opinion(score=float(score)) for score in scores]
