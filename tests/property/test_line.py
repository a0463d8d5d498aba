"""Whatever comes, leaves and is called: bounds hold, nobody is lost, nobody is called twice."""

from hypothesis import given
from hypothesis import strategies as st

from router.admission.line import Line, Ticket
from router.domain.request import Priority

MOST, MOST_BYTES = 6, 100
tickets = st.builds(
    Ticket,
    st.integers(0, 120),
    st.sampled_from(list(Priority)),
    st.sampled_from("abc"),
    st.sampled_from([0.5, 1.0, 3.0]),
)
steps = st.lists(st.one_of(tickets, st.integers(0, 5), st.none()), max_size=80)


@given(steps)
def test_the_line_keeps_its_books(steps):
    line, number = Line[int](), 0
    waiting: dict[int, Ticket] = {}
    for step in steps:
        if step is None:
            called = line.next()
            assert (called is None) == (not waiting)
            if called is not None:
                del waiting[called]
        elif isinstance(step, Ticket):
            gone = line.in_the_way_of(step, MOST, MOST_BYTES)
            number += 1
            for waiter in gone or ():
                assert line.remove(waiter)
                assert waiting.pop(waiter).priority >= step.priority
            if gone is not None:
                line.add(number, step)
                waiting[number] = step
        elif len(waiting) > step:
            leaver = sorted(waiting)[step]
            del waiting[leaver]
            assert line.remove(leaver)
        assert set(line.tickets) == set(waiting)
        assert line.size_bytes == sum(ticket.payload_bytes for ticket in waiting.values())
        assert len(line) <= MOST
        assert line.size_bytes <= MOST_BYTES
        ahead = [t for t in waiting.values() if t.priority <= Priority.NORMAL]
        assert line.ahead_of(Ticket(1)) == (len(ahead), sum(t.payload_bytes for t in ahead))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=100))
def test_no_waiting_tenant_is_more_than_a_turn_behind(events):
    """While two tenants wait all the time, their turns differ by one at most."""
    line, number = Line[int](), 0
    for tenant in "xy":
        for _ in range(len(events) + 2):
            number += 1
            line.add(number, Ticket(1, tenant=tenant))
    owner = {waiter: ticket.tenant for waiter, ticket in line.tickets.items()}
    turns = {"x": 0, "y": 0}
    for tenant, comes in events:
        if comes:
            number += 1
            owner[number] = tenant
            line.add(number, Ticket(1, tenant=tenant))
        called = line.next()
        assert called is not None
        if owner[called] in turns:
            turns[owner[called]] += 1
        assert abs(turns["x"] - turns["y"]) <= 1
