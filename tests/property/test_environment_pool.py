"""Whatever happens in whatever order, the pool keeps its promises."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from workers.function_host.pool import EnvironmentPool, Reuse, State


class PoolMachine(RuleBasedStateMachine):
    """A model beside the pool: who holds an invocation, and the order of idleness."""

    environments = Bundle("environments")

    @initialize(limit=st.integers(1, 4))
    def create(self, limit: int) -> None:
        self.limit = limit
        self.pool = EnvironmentPool(limit)
        self.waiting = 0  # admitted, not yet given to an environment
        self.holding: dict[int, State] = {}
        self.free: list[int] = []  # in the order of their answers
        self.polled: set[int] = set()

    @rule()
    def admit(self) -> None:
        in_flight = self.waiting + len(self.holding)
        assert self.pool.try_reserve() == (in_flight < self.limit)
        self.waiting += in_flight < self.limit

    @precondition(lambda self: self.waiting)
    @rule(target=environments)
    def choose(self) -> int:
        choice = self.pool.choose()
        self.waiting -= 1
        number = choice.environment
        assert number not in self.holding, "a second invocation for a busy environment"
        if isinstance(choice, Reuse):
            assert number == self.free.pop(), "not the most recently used"
            self.polled.discard(number)
            self.holding[number] = State.BUSY
        else:
            assert not self.free
            self.holding[number] = State.STARTING
        return number

    @rule(number=environments)
    def finish(self, number: int) -> None:
        if self.holding.get(number) is State.STARTING:
            self.pool.started(number)
            self.holding[number] = State.BUSY
        elif self.holding.get(number) is State.BUSY:
            self.pool.answered(number)
            self.pool.release()
            del self.holding[number]
            self.free.append(number)

    @rule(number=environments)
    def poll(self, number: int) -> None:
        if number in self.free:
            self.polled.add(number)
            self.pool.polled(number)
        elif number in self.holding:
            self.pool.polled(number)

    @rule(number=consumes(environments))
    def die(self, number: int) -> None:
        if self.pool.state(number) is None:
            return
        self.pool.remove(number)
        if self.holding.pop(number, None):
            self.pool.release()
        self.free = [other for other in self.free if other != number]
        self.polled.discard(number)

    @rule()
    def hand_back(self) -> None:
        """An environment dies with an invocation it was given but never saw."""
        if not self.holding:
            return
        number = next(iter(self.holding))
        del self.holding[number]
        self.pool.remove(number)
        self.waiting += 1

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "pool"):
            return
        assert self.pool.reserved == self.waiting + len(self.holding) <= self.limit
        assert len(self.holding) + len(self.free) <= self.limit
        states = {
            **self.holding,
            **dict.fromkeys(self.free, State.RETURNING),
            **dict.fromkeys(self.polled, State.IDLE),
        }
        assert {number: self.pool.state(number) for number in states} == states


TestEnvironmentPool = PoolMachine.TestCase
TestEnvironmentPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
