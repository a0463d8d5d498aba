"""What the other gateways have said last, and what that amounts to.

Decides what of their answers is taken up, and takes up only what has changed. Never talks to Redis.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from router.signals.records import (
    FIELDS,
    PeerRecord,
    RecordError,
    changed,
    decode,
)
from router.signals.snapshot import CanaryWord, FleetSnapshot, SharedEndpoint

MAX_CHANGES_BYTES: Final = 512 * 1024
"""After so many bytes of changes a record is read whole again, whose size is bounded."""

Answer = Sequence[bytes | None] | bytes
"""What the script READ says of one record."""

_NOTHING: Final = PeerRecord({}, {}, {}, {}, {})
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Heard:
    """What one peer has said, in so many bytes; `head` is empty where it numbers no changes."""

    record: PeerRecord
    head: bytes
    words: Sequence[bytes | None]
    whole_bytes: int
    changes_bytes: int


@dataclass(slots=True)
class Peers:
    """The records of the other gateways, and the merged views of them.

    `dropped` counts answers that were not believed.
    """

    dropped: int = 0
    _heard: dict[str, _Heard] = field(default_factory=dict)
    _endpoints: dict[str, tuple[SharedEndpoint, ...]] = field(default_factory=dict)
    _in_flight: dict[str, int] = field(default_factory=dict)
    _canaries: dict[str, tuple[CanaryWord, ...]] = field(default_factory=dict)

    def known(self, peer: str) -> bytes:
        """The number of the last change heard of a peer; empty where all is to be read."""
        heard = self._heard.get(peer)
        if heard is None or heard.changes_bytes > MAX_CHANGES_BYTES:
            return b""
        return heard.head

    @property
    def held_bytes(self) -> int:
        """What was read of the records that are not read whole again."""
        return sum(
            heard.whole_bytes + heard.changes_bytes
            for peer, heard in self._heard.items()
            if self.known(peer)
        )

    def hear(self, peer: str, answer: Answer) -> None:
        """Take up what was read of a peer's record; one that is gone or wrong is forgotten."""
        if not answer:  # it left, or its record expired, after we read the members
            self._take(peer, None)
            return
        try:
            self._take(peer, self._understood(peer, answer))
        except RecordError as error:
            self.drop(peer, error)
            self._take(peer, None)

    def drop(self, owner: str, error: Exception) -> None:
        """Count a record that was not believed."""
        self.dropped += 1
        _log.debug("shared state: record of %s dropped: %s", owner, error)

    def retain(self, peers: Iterable[str]) -> None:
        """Forget all others."""
        for gone in self._heard.keys() - set(peers):
            self._take(gone, None)

    def snapshot(self, *, is_leader: bool, taken_at: float) -> FleetSnapshot:
        """What is known now."""
        heard = sorted(self._heard.items())
        return FleetSnapshot(
            peers={peer: said.record.totals for peer, said in heard},
            endpoints=self._endpoints,
            peer_in_flight=self._in_flight,
            is_leader=is_leader,
            taken_at=taken_at,
            taken={peer: said.record.taken for peer, said in heard},
            canaries=self._canaries,
        )

    def _understood(self, peer: str, answer: Answer) -> _Heard:
        if isinstance(answer, bytes):
            raise RecordError(f"not read: {answer.decode()}")
        heard, kind = self._heard.get(peer), answer[0]
        if kind != b"whole" and heard is None:
            raise RecordError("changes to a record that is not known")
        if heard is not None and kind == b"same":
            return heard
        head, words = answer[1] or b"", answer[2:]
        if heard is not None and kind == b"changes":
            record, changes_bytes = _applied(peer, heard.record, words)
            return _Heard(record, head, (), heard.whole_bytes, heard.changes_bytes + changes_bytes)
        if heard is not None and not head and heard.words == words:
            return heard
        fields, changes = words[: len(FIELDS)], words[len(FIELDS) :]
        named = zip(FIELDS, fields, strict=True)
        record = decode(peer, {name.encode(): said for name, said in named if said is not None})
        record, changes_bytes = _applied(peer, record, changes)
        whole_bytes = sum(len(said) for said in fields if said is not None)
        return _Heard(record, head, () if head else words, whole_bytes, changes_bytes)

    def _take(self, peer: str, heard: _Heard | None) -> None:
        known = self._heard.get(peer)
        before = known.record if known is not None else _NOTHING
        after = heard.record if heard is not None else _NOTHING
        if heard is None:
            self._heard.pop(peer, None)
        else:
            self._heard[peer] = heard
        # Replaced and never changed: snapshots have them.
        if before.endpoints is not after.endpoints:
            self._endpoints = self._remerged(_differing(before.endpoints, after.endpoints))
        if before.in_flight is not after.in_flight:
            self._in_flight = _shifted(self._in_flight, before.in_flight, after.in_flight)
        if before.canaries != after.canaries:
            self._canaries = self._gathered()

    def _remerged(self, models: Iterable[str]) -> dict[str, tuple[SharedEndpoint, ...]]:
        """The endpoints of all, worked out anew for these models."""
        records = [said.record for _, said in sorted(self._heard.items())]
        merged = dict(self._endpoints)
        for model in models:
            found = [each for record in records for each in record.endpoints.get(model, ())]
            if found:
                merged[model] = tuple(found)
            else:
                merged.pop(model, None)
        return merged

    def _gathered(self) -> dict[str, tuple[CanaryWord, ...]]:
        words: dict[str, list[CanaryWord]] = {}
        for _, said in sorted(self._heard.items()):
            for rule, word in said.record.canaries.items():
                words.setdefault(rule, []).append(word)
        return {rule: tuple(said) for rule, said in words.items()}


def _applied(
    peer: str, record: PeerRecord, changes: Sequence[bytes | None]
) -> tuple[PeerRecord, int]:
    size = 0
    for change in changes:
        if change is None:
            raise RecordError("a change is missing")
        record = changed(peer, record, change)
        size += len(change)
    return record, size


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    names = [name for name, said in after.items() if before.get(name) != said]
    return names + [name for name in before if name not in after]


def _shifted(
    sums: Mapping[str, int], before: Mapping[str, int], after: Mapping[str, int]
) -> dict[str, int]:
    """The sums when one of those summed up is no longer `before` but `after`."""
    shifted = dict(sums)
    for name in _differing(before, after):
        count = shifted.get(name, 0) - before.get(name, 0) + after.get(name, 0)
        if count:
            shifted[name] = count
        else:
            shifted.pop(name, None)
    return shifted
