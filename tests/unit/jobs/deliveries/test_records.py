from random import Random

import pytest

from router.jobs.deliveries.records import (
    About,
    Delivery,
    Progress,
    Reply,
    first_look,
    looked,
    tried,
)

DAY_S = 86400.0
NEW = Delivery("job_1", "t", About.JOB, "https://a.test/", "a.test:443", 1000.0, 4600.0, 1030.0)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (200, Progress.DELIVERED),
        (204, Progress.DELIVERED),
        (299, Progress.DELIVERED),
        (0, Progress.WAITING),
        (302, Progress.WAITING),
        (400, Progress.WAITING),
        (404, Progress.WAITING),
        (410, Progress.GONE),
        (429, Progress.WAITING),
        (500, Progress.WAITING),
    ],
)
def test_only_2xx_is_an_end_and_410(status: int, state: Progress):
    after = tried(NEW, Reply(status, "why"), 2000.0, DAY_S, Random(1))
    assert (after.state, after.attempts, after.begun_at) == (state, 1, 2000.0)
    assert (after.ended_at == 2000.0) is (state is not Progress.WAITING)
    assert (after.cause == "") is (state is Progress.DELIVERED)


def test_pauses_double_with_jitter_up_to_an_hour_for_a_day():
    delivery, now, pauses = NEW, 2000.0, []
    while delivery.state is Progress.WAITING:
        delivery = tried(delivery, Reply(503), now, DAY_S, Random(delivery.attempts))
        pauses.append(delivery.next_at - now)
        now = delivery.next_at
    for number, pause_s in enumerate(pauses):
        expected = min(3600.0, 5.0 * 2**number)
        assert 0.5 * expected <= pause_s <= 1.5 * expected
    assert len({pause_s / 3600.0 for pause_s in pauses[-10:]}) == 10
    assert delivery.state is Progress.DEAD
    assert delivery.cause == "its receiver answered 503"
    assert 2000.0 + DAY_S - 5400.0 <= delivery.ended_at <= 2000.0 + DAY_S


def test_a_receiver_may_ask_for_a_longer_pause_but_for_an_hour_at_most():
    assert tried(NEW, Reply(429, "", 600.0), 0.0, DAY_S, Random(1)).next_at == 600.0
    assert tried(NEW, Reply(429, "", 1e6), 0.0, DAY_S, Random(1)).next_at == 3600.0
    assert tried(NEW, Reply(429, "", 0.1), 0.0, DAY_S, Random(1)).next_at >= 2.5


def test_looks_become_rarer_and_there_is_one_when_the_window_is_over():
    assert first_look(0.0, 10.0) == 11.0
    delivery, at = NEW, first_look(NEW.created_at, NEW.due_at)
    looks = []
    while at < 20_000.0:
        looks.append(at)
        delivery = looked(delivery, at)
        at = delivery.next_at
    assert NEW.due_at + 1.0 in looks
    assert len(looks) < 16
    assert (delivery.attempts, delivery.begun_at) == (0, 0.0)


def test_each_delivery_of_a_job_has_an_id_of_its_own():
    again = Delivery("job_1", "t", About.JOB, NEW.url, NEW.host, 1000.5, 4600.0, 0.0)
    assert NEW.message_id != again.message_id
