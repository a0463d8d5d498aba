"""Answers that wait for their labels: the few numbers kept of each, by tenant and id.

A tenant finds its own only. Bounded by number for each model and by age; pure, told the time.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from router.quality.predictions import Prediction
from router.quality.samples import Origin

MAX_PER_ID = 4
"""Answers under one id: the client's, and those of shadows."""


class Kept(NamedTuple):
    """An answer's numbers, under any of its ids.

    `at` is when it was given, `until` when it is forgotten.
    """

    ids: Sequence[str]
    origin: Origin
    predictions: Sequence[Prediction]
    at: float
    until: float


_Key = tuple[str | None, str]


class Pending:
    """The answers of one gateway that wait."""

    def __init__(self) -> None:
        self._by_key: dict[_Key, list[Kept]] = {}
        self._order: dict[str, deque[Kept]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def keep(self, kept: Kept, most: int) -> None:
        """Keep an answer; the model's oldest go where there are more than that."""
        order = self._order.setdefault(kept.origin.model, deque())
        for given in kept.ids:
            key, model = (kept.origin.tenant, given), kept.origin.model
            # Of a client that gives an id twice, the later answer is meant.
            waiting = [each for each in self._by_key.get(key, ()) if each.origin.model != model]
            self._by_key[key] = [*waiting[1 - MAX_PER_ID :], kept]
        order.append(kept)
        while order and (len(order) > most or order[0].until <= kept.at):
            self.forget(order.popleft())

    def find(self, tenant: str | None, given: str, now: float) -> list[Kept]:
        """The answers under that id of that tenant."""
        found = self._by_key.get((tenant, given), ())
        return [kept for kept in found if kept.until > now]

    def retain(self, models: Sequence[str]) -> None:
        """Forget the answers of all other models."""
        for name in self._order.keys() - set(models):
            for kept in self._order.pop(name):
                self.forget(kept)

    def forget(self, kept: Kept) -> None:
        """Let an answer wait no longer; it may have been forgotten before."""
        for given in kept.ids:
            key = (kept.origin.tenant, given)
            left = [each for each in self._by_key.get(key, ()) if each is not kept]
            if left:
                self._by_key[key] = left
            else:
                self._by_key.pop(key, None)
