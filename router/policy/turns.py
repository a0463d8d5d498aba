"""Whose turn a slot is that several models wait for: start-time fair queueing by work.

Each model in turn gets as much of the replicas' time as every other that waits, however many
requests it has and however long they take (Goyal, Vin and Cheng, "Start-time fair queueing", 1996).
One that did not wait saves nothing up. Pure.
"""

from collections.abc import Callable, Container


class Turns:
    """The models that wait. Virtual times are in seconds of work that a waiting model got."""

    def __init__(self) -> None:
        self.waiting: dict[str, float] = {}
        self._now = 0.0
        self._owed: dict[str, float] = {}

    def join(self, name: str) -> None:
        """A request of the model waits, perhaps not its first."""
        if name not in self.waiting:
            self.waiting[name] = max(self._owed.get(name, 0.0), self._now)

    def leave(self, name: str) -> None:
        """No request of the model waits any more."""
        self._owed[name] = self.waiting.pop(name)
        if not self.waiting:
            # Nobody is owed anything: what was, would only grow.
            self._now = 0.0
            self._owed.clear()

    def next(self, stuck: Container[str]) -> str | None:
        """The model whose turn it is, but for `stuck` ones, which no free slot is good for."""
        able = [name for name in self.waiting if name not in stuck]
        return min(able, key=self.waiting.__getitem__, default=None)

    def hand_out(self, waits: Callable[[str], bool], serve: Callable[[str], float | None]) -> None:
        """Let each have its turn, for as long as there are slots for anybody who waits.

        `serve` gives a model a slot and says for about how long; None if none is good for it.
        """
        stuck: set[str] = set()
        while (name := self.next(stuck)) is not None:
            if not waits(name):
                self.leave(name)
            elif (work_s := serve(name)) is not None:
                self.served(name, work_s)
            else:
                stuck.add(name)

    def served(self, name: str, work_s: float) -> None:
        """The model has got a slot, for about so long."""
        self._now = self.waiting[name]
        self.waiting[name] += work_s
