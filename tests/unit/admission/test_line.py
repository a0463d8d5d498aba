from collections import Counter
from dataclasses import replace

import pytest

from router.admission.line import Line, Ticket, ticket_of
from router.domain.request import Priority
from tests.fakes.builders import make_request

HIGH, NORMAL, LOW = Priority.HIGH, Priority.NORMAL, Priority.LOW


def line_of(*waiters) -> Line[str]:
    """A line of (name, priority, tenant)."""
    line = Line[str]()
    for name, *facts in waiters:
        line.add(name, Ticket(1, *facts))
    return line


def order(line) -> str:
    names = ""
    while (name := line.next()) is not None:
        names += name
    return names


@pytest.mark.parametrize(
    ("waiters", "expected"),
    [
        ("aN bN cN", "abc"),
        ("aL bN cH dH", "cdba"),
        ("aNx bNx cNy dNx eNy", "acbed"),
        ("aNx bLy cNx", "acb"),
    ],
    ids=["first come", "by class", "tenants take turns", "a class goes before a tenant's turn"],
)
def test_the_order(waiters, expected):
    classes = {"H": HIGH, "N": NORMAL, "L": LOW}
    parsed = [(text[0], classes[text[1]], text[2:]) for text in waiters.split()]
    assert order(line_of(*parsed)) == expected


def test_a_low_class_is_not_passed_over_for_ever():
    line = line_of(("z", LOW))
    taken = ""
    for turn in range(12):
        line.add(f"{turn:x}", Ticket(1, HIGH))
        taken += line.next() or ""
    assert taken == "01234567z89a"


def test_a_tenant_of_twice_the_weight_has_twice_the_turns():
    line = Line[int]()
    for number in range(300):
        line.add(number, Ticket(1, NORMAL, "gold", 2.0))
        line.add(1000 + number, Ticket(1, NORMAL, "iron", 1.0))
    turns = Counter("gold" if (line.next() or 0) < 1000 else "iron" for _ in range(300))
    assert turns == {"gold": 200, "iron": 100}


def test_a_tenant_gains_nothing_by_coming_again_and_again():
    """One request at a time, always at the end of the line, is one turn of two, not every one."""
    line = Line[int]()
    for number in range(100):
        line.add(number, Ticket(1, NORMAL, "flood"))
    line.add(1000, Ticket(1, NORMAL, "again"))
    turns = []
    for number in range(1001, 1021):
        turns.append((line.next() or 0) >= 1000)
        if turns[-1]:
            line.add(number, Ticket(1, NORMAL, "again"))
    assert sum(turns) == 10


def test_whoever_leaves_is_not_called():
    line = line_of(("a", NORMAL), ("b", NORMAL), ("c", NORMAL))
    assert line.remove("b")
    assert not line.remove("b")
    assert order(line) == "ac"


class TestAFullLine:
    @pytest.mark.parametrize(
        ("ticket", "gone"),
        [
            (Ticket(1, HIGH), ["f"]),
            (Ticket(1, NORMAL, "new"), ["f"]),
            (Ticket(1, LOW, "x"), None),
            (Ticket(1, LOW, "new"), ["f"]),
        ],
        ids=["by a high one", "by a normal one", "not by its own tenant", "by another tenant"],
    )
    def test_the_last_of_the_lowest_class_goes_first(self, ticket, gone):
        line = line_of(
            ("a", HIGH), ("b", NORMAL), ("c", LOW, "x"), ("d", LOW, "x"), ("e", LOW, "y"),
            ("f", LOW, "x"),
        )  # fmt: skip
        assert line.in_the_way_of(ticket, 6, 100) == gone

    @pytest.mark.parametrize(
        ("counts", "weight", "comes", "displaces"),
        [
            ({"flood": 4}, 1.0, "new", True),
            ({"flood": 2, "new": 2}, 1.0, "new", False),
            ({"flood": 3, "new": 1}, 1.0, "new", True),
            ({"flood": 3, "new": 1}, 1.0, "flood", False),
            ({"flood": 2, "new": 2}, 4.0, "new", True),
        ],
        ids=["has none", "has its share", "has less", "the flood itself", "a heavy one has less"],
    )
    def test_a_tenant_gets_its_share_of_the_places(self, counts, weight, comes, displaces):
        line = Line[str]()
        for tenant, count in counts.items():
            of_weight = weight if tenant == "new" else 1.0
            for number in range(count):
                line.add(f"{tenant}{number}", Ticket(1, NORMAL, tenant, of_weight))
        ticket = Ticket(1, NORMAL, comes, weight if comes == "new" else 1.0)
        gone = line.in_the_way_of(ticket, 4, 100)
        last = f"flood{counts['flood'] - 1}"
        assert gone == ([last] if displaces else None)

    def test_as_many_go_as_the_bytes_ask_for(self):
        line = Line[str]()
        for name in "abcd":
            line.add(name, Ticket(10, LOW))
        assert line.in_the_way_of(Ticket(25, HIGH), 100, 40) == ["d", "c", "b"]

    @pytest.mark.parametrize(
        ("ticket", "most"), [(Ticket(41, HIGH), 9), (Ticket(1, HIGH), 0)],
        ids=["larger than the queue", "a queue of no length"],
    )  # fmt: skip
    def test_nobody_goes_for_one_that_can_never_fit(self, ticket, most):
        line = Line[str]()
        line.add("a", Ticket(10, LOW))
        assert line.in_the_way_of(ticket, most, 40) is None


def test_a_waiter_counts_with_what_is_kept_of_its_body():
    whole = make_request(payload_bytes=64 << 20)
    assert ticket_of(whole).payload_bytes == 64 << 20
    assert ticket_of(replace(whole, kept_bytes=256 << 10)).payload_bytes == 256 << 10
