"""The quality of models beside the rest of the gateway: canaries, other gateways, the admin port.

What is found about a canary takes it out here; what other gateways know is fetched here, in the
background. How good anything is, is the quality room's to say.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from redis.exceptions import RedisError

from router.domain.errors import NotFoundError
from router.domain.events import EventKind, told
from router.gateway.protocols.feedback import adopt
from router.quality.files import MAX_FILE_BYTES, BaselineError, decode, encode
from router.quality.monitor import Monitor, Verdict
from router.quality.pending import Kept
from router.quality.quality import MAX_ORPHANS, LabelResult, Orphan, Quality, SampleResult
from router.quality.samples import QualityParams
from router.quality.sharing import word_of
from router.quality.view import document
from router.quality.words import MAX_BYTES, WordForm, heard, name_of
from router.runtime import RuntimeRef
from router.signals.notes import Notes
from router.telemetry.exposition import Labels
from router.telemetry.readings import QualityReading

_log = logging.getLogger(__name__)

_EXCHANGE_EVERY_S = 5.0
_NOTE_EXPIRY_S = 60.0
_LABELS = "labels:"
MAX_LABEL_BYTES = 8 << 20
_ORPHANS = msgspec.json.Decoder(Annotated[list[Orphan], msgspec.Meta(max_length=MAX_ORPHANS)])
_BASELINE_EXPIRY_S = 30 * 24 * 3600.0


class QualityAction(StrEnum):
    """What can be asked for a version."""

    REBASELINE = "rebaseline"


class QualityQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """Which version of a model, and what shall become of it: a new baseline, of what comes next."""

    model: str
    action: QualityAction
    version: str = ""


class WatchedQuality:
    """The quality of the models of one gateway process.

    `notes` None: no other gateway is there; `peers` names those that are.
    """

    def __init__(
        self,
        quality: Quality,
        runtime: RuntimeRef,
        notes: Notes | None,
        peers: Callable[[], Collection[str]],
    ) -> None:
        self._quality = quality
        self._runtime = runtime
        self._notes = notes
        self._peers = peers
        self._settled: dict[tuple[str, str], str] = {}
        self._is_late = False
        self._adopted: dict[str, int] = {}
        if notes is not None:
            quality.orphans = deque(maxlen=MAX_ORPHANS)
        quality.on_verdict = self._convict
        quality.on_label = self._count_label

    def take_up(self, params: dict[str, QualityParams]) -> None:
        """Watch these models so."""
        self._quality.configure(params)

    async def run(self) -> None:
        """Keep what is shown current, and tell and hear other gateways, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._quality.run())
                if self._notes is not None:
                    group.create_task(self._exchanging(self._notes))
        finally:
            if self._notes is not None:
                await _left(self._notes)

    async def _exchanging(self, notes: Notes) -> None:
        while True:
            if self._quality.watches:
                await self._exchange_once(notes)
            await asyncio.sleep(_EXCHANGE_EVERY_S)

    async def _exchange_once(self, notes: Notes) -> None:
        try:
            await notes.leave(await self._quality.ask(word_of), _NOTE_EXPIRY_S)
            said = await notes.read(self._peers(), MAX_BYTES)
            await self._quality.ask(lambda monitor: _hear(monitor, said))
            await self._settle_baselines(notes)
            await self._pass_on_labels(notes)
        except (RedisError, OSError, TimeoutError) as error:
            if not self._is_late:
                _log.warning("quality: other gateways are not heard, %s", type(error).__name__)
            self._is_late = True
        else:
            self._is_late = False

    async def _pass_on_labels(self, notes: Notes) -> None:
        """Tell the others the labels that belong to none of our answers, and hear theirs."""
        own = list(self._quality.orphans or ())
        await notes.leave(msgspec.json.encode(own), _NOTE_EXPIRY_S, _LABELS)
        said = await notes.read(self._peers(), MAX_LABEL_BYTES, _LABELS)
        for peer, text in said.items():
            try:
                orphans = _ORPHANS.decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                _log.debug("quality: labels of %s are not believed: %s", peer, error)
                continue
            last = self._adopted.get(peer, 0)
            if orphans and orphans[-1].number < last:
                last = 0  # it has started anew
            for orphan in orphans:
                if orphan.number > last:
                    adopt(self._quality, orphan)
                    last = orphan.number
            self._adopted[peer] = last
        self._adopted = {peer: last for peer, last in self._adopted.items() if peer in said}

    async def _settle_baselines(self, notes: Notes) -> None:
        """Have all gateways compare a version with the same baseline: the first that there was."""
        own = await self._quality.ask(_baselines)
        for (model, version), (name, text) in own.items():
            if self._settled.get((model, version)) == name:
                continue
            key = f"{model} {version}"
            agreed = await notes.settle(key, text, _BASELINE_EXPIRY_S, MAX_FILE_BYTES)
            self._settled[model, version] = await self._adopt(model, version, agreed, name)

    async def _adopt(self, model: str, version: str, agreed: bytes, own: str) -> str:
        try:
            baseline = decode(agreed)
        except BaselineError as error:
            _log.warning("quality of %s: the shared baseline is not believed: %s", model, error)
            return own
        if name_of(baseline) != own:
            now = self._quality.now()

            def compare(monitor: Monitor) -> None:
                subject = monitor.subject(model, version)
                if subject is not None:
                    subject.compare_with(baseline, now)

            await self._quality.ask(compare)
        return name_of(baseline)

    # -- canaries --------------------------------------------------------------------------------

    def _convict(self, verdict: Verdict) -> None:
        trial = self._runtime.current.trials.get(verdict.rule)
        if trial is not None and trial.convict(verdict.finding, verdict.epoch):
            facts = told(EventKind.CANARY, trial.canary.stable_model, rule=verdict.rule)
            text = verdict.finding.text
            _log.error("canary of rule %s is rolled back: %s", verdict.rule, text, extra=facts)

    def _count_label(self, kept: Kept) -> None:
        place = kept.origin.place
        trial = self._runtime.current.trials.get(place.rule) if place is not None else None
        if trial is not None and place is not None and place.epoch == trial.epoch:
            trial.count_label(place.side)

    # -- the admin port --------------------------------------------------------------------------

    async def shown(self, model: str | None) -> dict[str, Any]:
        """The answer of `/v1/quality`. Raises NotFoundError for a model that is not watched."""
        if model is not None and self._quality.params(model) is None:
            raise NotFoundError(f"no model {model[:100]!r} with quality settings is configured")
        found = await self._quality.ask(lambda monitor: document(monitor, model))
        counts = self._quality
        return {
            **found,
            "samples": _by_model(counts.samples, SampleResult),
            "labels": _by_model(counts.labels, LabelResult),
            "waiting_for_labels": len(counts.pending),
        }

    async def act(self, question: QualityQuestion) -> dict[str, Any]:
        """Do what is asked. Raises NotFoundError for a version of which nothing is known."""

        def relearn(monitor: Monitor) -> bool:
            subject = monitor.subject(question.model, question.version)
            if subject is not None:
                subject.learn_anew()
            return subject is not None

        if not await self._quality.ask(relearn):
            raise NotFoundError("nothing is known of that version of that model")
        self._settled.pop((question.model, question.version), None)
        if self._notes is not None:
            try:
                await self._notes.unsettle(f"{question.model} {question.version}")
            except (RedisError, OSError, TimeoutError) as error:
                _log.warning("quality: the shared baseline stays, %s", type(error).__name__)
        _log.warning("quality of %s: a new baseline is learned, as asked", question.model)
        return {"model": question.model, "version": question.version, "learning": True}

    def reading(self) -> QualityReading:
        """What metrics show."""
        quality = self._quality
        return QualityReading(
            samples_total={(model, str(to)): n for (model, to), n in quality.samples.items()},
            labels_total={(model, str(to)): n for (model, to), n in quality.labels.items()},
            pending=len(quality.pending),
            drifting=_of_versions(quality, lambda found: found.drifting),
            largest_psi=_of_versions(quality, lambda found: found.largest_psi),
            alarms_total={
                (model, version, test): count
                for model, versions in quality.summary.items()
                for version, found in versions.items()
                for test, count in found.alarms.items()
            },
            judged_total=_of_sides(quality, lambda metric: metric.size),
            right_total=_of_sides(quality, lambda metric: metric.value * metric.size),
        )


def _of_versions(quality: Quality, value: Callable[..., float]) -> dict[Labels, float]:
    return {
        (model, version): value(found)
        for model, versions in quality.summary.items()
        for version, found in versions.items()
    }


def _of_sides(quality: Quality, value: Callable[..., float]) -> dict[Labels, float]:
    return {
        (model, version, side): value(metric)
        for model, versions in quality.summary.items()
        for version, found in versions.items()
        for side, metric in found.rewards.items()
    }


def _by_model(counts: dict[Any, int], results: type[StrEnum]) -> dict[str, dict[str, int]]:
    models = {model for model, _ in counts}
    return {model: {str(result): counts[model, result] for result in results} for model in models}


def _hear(monitor: Monitor, said: dict[str, bytes]) -> None:
    words: dict[str, WordForm] = {}
    for peer, text in said.items():
        try:
            words[peer] = heard(text)
        except BaselineError as error:
            _log.debug("quality: the word of %s is not believed: %s", peer, error)
    monitor.peers = words


def _baselines(monitor: Monitor) -> dict[tuple[str, str], tuple[str, bytes]]:
    """Each version's baseline, by its name and as it travels; not what files say."""
    found = {}
    for key, subject in monitor.subjects.items():
        baseline = subject.baseline
        if baseline is not None and not monitor.is_given(key[0]):
            found[key] = name_of(baseline), encode(baseline)
    return found


async def _left(notes: Notes) -> None:
    try:
        await notes.close()
    except (RedisError, OSError, TimeoutError) as error:
        _log.info("quality: left without notice, %s", type(error).__name__)
