"""Whatever happens in whatever order, the pool keeps its promises."""

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.function_host.pool import EnvironmentPool, Reuse, State

# What happens, and to which of the environments there are (taken modulo their number).
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "call", "call", "finish", "finish", "poll", "die", "hand_back"]),
        st.integers(0, 11),
    ),
    max_size=60,
)


class Model:
    """What should be true, in lists; drives the pool beside it and compares."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pool = EnvironmentPool(limit)
        self.waiting = 0  # admitted, not yet given to an environment
        self.holding: dict[int, State] = {}  # environments with an invocation
        self.free: list[int] = []  # in the order of their answers
        self.polled: set[int] = set()

    def admit(self) -> None:
        in_flight = self.waiting + len(self.holding)
        assert self.pool.try_reserve() == (in_flight < self.limit)
        self.waiting += in_flight < self.limit

    def choose(self) -> None:
        if not self.waiting:
            return
        self.waiting -= 1
        choice = self.pool.choose()
        number = choice.environment
        assert number not in self.holding, "a second invocation for a busy environment"
        if isinstance(choice, Reuse):
            assert number == self.free.pop(), "not the most recently used"
            self.polled.discard(number)
            self.holding[number] = State.BUSY
        else:
            assert not self.free, "started although one was free"
            self.holding[number] = State.STARTING

    def finish(self, number: int) -> None:
        if self.holding.get(number) is State.STARTING:
            self.pool.started(number)
        elif number not in self.holding:
            return
        self.pool.answered(number)
        self.pool.release()
        del self.holding[number]
        self.free.append(number)

    def poll(self, number: int) -> None:
        self.pool.polled(number)
        if number in self.free:
            self.polled.add(number)

    def die(self, number: int) -> None:
        self.pool.remove(number)
        if self.holding.pop(number, None):
            self.pool.release()
        self.free = [other for other in self.free if other != number]
        self.polled.discard(number)

    def hand_back(self, number: int) -> None:
        """An environment dies with an invocation it was given but never saw."""
        if number in self.holding:
            self.pool.remove(number)
            del self.holding[number]
            self.waiting += 1

    def step(self, name: str, pick: int) -> None:
        environments = [*self.holding, *self.free]
        if name == "admit":
            self.admit()
        elif name == "call":
            self.admit()
            self.choose()
        elif environments:
            getattr(self, name)(environments[pick % len(environments)])

    def check(self) -> None:
        assert self.pool.reserved == self.waiting + len(self.holding) <= self.limit
        assert len(self.holding) + len(self.free) <= self.limit
        states = {
            **self.holding,
            **dict.fromkeys(self.free, State.RETURNING),
            **dict.fromkeys(self.polled, State.IDLE),
        }
        assert {number: self.pool.state(number) for number in states} == states


@settings(max_examples=200, deadline=None)
@given(limit=st.integers(1, 5), steps=STEPS)
def test_never_over_the_limit_never_two_at_once_and_most_recent_first(
    limit: int, steps: list[tuple[str, int]]
) -> None:
    model = Model(limit)
    for name, pick in steps:
        model.step(name, pick)
        model.check()
