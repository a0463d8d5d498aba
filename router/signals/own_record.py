"""What a gateway has told the others of itself: a whole, and numbered changes to it.

Decides what is written and when all of it is written again. Pure: it makes commands and never
sends them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from router.signals.records import KEPT_CHANGES, Publication, encode, encode_change

Fields = tuple[str | bytes | int, ...]
"""Names and values in turn, as HSET takes them."""

WHOLE_EVERY: Final = KEPT_CHANGES // 2
"""So many changes later the whole is written anew: whoever is new reads it and few changes."""
_MAX_UNWRITTEN_BYTES: Final = 256 * 1024
"""Changes that are larger together are told as a whole."""


@dataclass(frozen=True, slots=True)
class Told:
    """How to bring the shared state up to date, so that the record there has the number `head`.

    `after` is the head that it must have at least, None if it is to be written whole. `fields` are
    then all of them, else those to set.
    """

    after: int | None
    head: int
    fields: Fields


class OwnRecord:
    """The record of one gateway since it started.

    Each change has a number, `head` is the last one's. The numbers begin at `first`, which should
    be random, so that nobody takes a gateway that has started again for the one it was.
    """

    def __init__(self, first: int) -> None:
        self.head = first
        self._whole_at = first
        self._written: int | None = None
        self._unwritten: dict[int, bytes] = {}
        # Of mappings that are its own, to be changed.
        self._said: tuple[dict[str, Any], ...] = ({}, {}, {}, {}, {})

    def take(self, publication: Publication) -> Told:
        """What to write so that the others know this; what they have been told is left out.

        Call `written` once it is, or `lost` if there is no such record. As long as neither is
        known, it is written again with what is new.
        """
        after, self._written = self._written, None  # should this fail, all is written anew
        change = self._changed(publication)
        if change:
            self.head += 1
            self._unwritten[self.head] = change
        is_long = sum(map(len, self._unwritten.values())) > _MAX_UNWRITTEN_BYTES
        if after is None or is_long or len(self._unwritten) > WHOLE_EVERY:
            self.head += KEPT_CHANGES + 1  # nobody who knows an earlier one looks for changes
            self._unwritten.clear()
            return Told(None, self.head, ("head", self.head, *self._whole()))
        self._written = after
        fields: Fields = ()
        for number, unwritten in self._unwritten.items():
            fields += (f"c{number}", unwritten)
        if fields and self.head - self._whole_at >= WHOLE_EVERY:
            fields += self._whole()
        return Told(after, self.head, fields)

    def written(self) -> None:
        """What `take` returned last is in the shared state."""
        self._written = self.head
        self._unwritten.clear()

    def lost(self) -> None:
        """The shared state has no such record, or another: the next time it is written whole."""
        self._written = None

    def _changed(self, publication: Publication) -> bytes:
        """The change as JSON, empty for none; remembers it."""
        parts = zip(self._said, publication, strict=True)
        news = Publication(*[_take_up(said, told) for said, told in parts])
        return encode_change(news) if any(news) else b""

    def _whole(self) -> Fields:
        self._whole_at = self.head
        fields: list[str | bytes | int] = ["base", self.head]
        for name, said in encode(Publication(*self._said)).items():
            fields += (name, said)
        return tuple(fields)


def _take_up(said: dict[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Add what is told to what was said, and return what of it is news; None is what is gone."""
    news = {name: value for name, value in told.items() if said.get(name) != value}
    for name, value in news.items():
        if value is None:
            del said[name]
        else:
            said[name] = value
    return news
