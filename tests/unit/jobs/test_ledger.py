"""Many ends in one transaction, and what becomes of those that nobody could write."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from router.domain.errors import NotDurableError
from router.jobs.endings import Endings
from router.jobs.ledger import Ledger
from router.jobs.records import End, Result, State


class Store:
    """Writes one call at a time, when it is let; `theirs` are jobs that are somebody else's."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.may_write = asyncio.Event()
        self.theirs: set[str] = set()
        self.fails = False

    async def end(self, worker: str, ends: Sequence[End]) -> list[bool]:
        del worker
        self.calls.append([end.id for end in ends])
        await self.may_write.wait()
        if self.fails:
            raise NotDurableError("gone")
        return [end.id not in self.theirs for end in ends]


class Objects:
    def __init__(self) -> None:
        self.removed: list[str] = []

    async def remove(self, *names: str) -> None:
        self.removed += names


def end(job_id: str) -> End:
    return End(job_id, 1, State.DONE, 0.0, Result(200, content=f"object-{job_id}"))


def ledger(store: Any, objects: Any, ended: Counter[State]) -> Ledger:
    return Ledger("w", store, objects, ended, Endings())


async def test_what_ends_while_some_are_written_goes_into_the_next_transaction_together():
    store, objects, ended = Store(), Objects(), Counter[State]()
    store.theirs = {"c"}
    made = ledger(store, objects, ended)
    made.add(end("a"))
    running = asyncio.create_task(made.run())
    while not store.calls:
        await asyncio.sleep(0)
    for name in "bcd":
        made.add(end(name))
    store.may_write.set()
    while ended[State.DONE] < 3:
        await asyncio.sleep(0)
    running.cancel()
    assert store.calls == [["a"], ["b", "c", "d"]]
    assert objects.removed == ["object-c"], "the answer that counts is another one"
    assert made.unwritten == 0


async def test_an_end_whose_writing_failed_is_not_written_again():
    store, objects, ended = Store(), Objects(), Counter[State]()
    store.fails = True
    store.may_write.set()
    made = ledger(store, objects, ended)
    made.add(end("a"))
    with pytest.raises(NotDurableError):
        await made.run()
    store.fails = False
    await made.flush()
    assert store.calls == [["a"]], "it may be written: then it would seem to be somebody else's"
    assert (ended, objects.removed) == (Counter(), [])
