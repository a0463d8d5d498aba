"""Long work on the event loop, cut into turns so that requests go on in between.

A thread would not do: while it computes, the interpreter lets the loop wait longer than a turn
takes. The work is a generator that yields wherever it may be interrupted, and returns its result.
"""

import asyncio
from collections.abc import Generator
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work that yields after every step. A step must take far less than TURN_S."""

TURN_S = 0.0005
"""How long work may keep the loop before everybody else has a turn."""


class Turn:
    """The time that the work of one task may keep the loop for."""

    __slots__ = ("_ends_at",)

    def __init__(self) -> None:
        self._ends_at = perf_counter() + TURN_S

    @property
    def is_over(self) -> bool:
        """Whether it is time for everybody else."""
        return perf_counter() >= self._ends_at

    async def pause_if_over(self) -> None:
        """Let everybody else run once, if the turn is over; then it is the next one."""
        if self.is_over:
            await asyncio.sleep(0)
            self._ends_at = perf_counter() + TURN_S


async def in_turns(work: Steps[T]) -> T:
    """The result of the work, done while everything else goes on; raises what the work raises."""
    turn = Turn()
    try:
        while True:
            next(work)
            await turn.pause_if_over()
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        work.close()


def at_once(work: Steps[T]) -> T:
    """The result of the work, where nothing else has to go on; raises what the work raises."""
    try:
        while True:
            next(work)
    except StopIteration as end:
        result: T = end.value
        return result
