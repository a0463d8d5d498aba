"""Answers wait for labels, a tenant's apart from all others', within bounds and for a time."""

from router.quality.pending import Kept, Pending
from router.quality.samples import Origin


def kept(*ids, tenant="t", model="m", at=0.0, ttl=10.0):
    return Kept(ids, Origin(model, "1", tenant), [], at, at + ttl)


def test_an_answer_is_found_by_any_of_its_ids_until_it_is_forgotten():
    pending, answer = Pending(), kept("r", "own")
    pending.keep(answer, 10)
    assert pending.find("t", "r", 1.0) == pending.find("t", "own", 1.0) == [answer]
    assert pending.find("u", "r", 1.0) == pending.find(None, "r", 1.0) == []
    pending.forget(answer)
    assert pending.find("t", "own", 1.0) == []
    assert len(pending) == 0


def test_it_waits_for_its_time_only():
    pending = Pending()
    pending.keep(kept("r"), 10)
    assert pending.find("t", "r", 9.9)
    assert not pending.find("t", "r", 10.0)
    pending.keep(kept("s", at=11.0), 10)
    assert len(pending) == 1


def test_a_flood_of_ids_makes_the_oldest_of_its_model_go():
    pending = Pending()
    pending.keep(kept("mine", model="other"), 10)
    for number in range(1000):
        pending.keep(kept(str(number), f"alias-{number}"), 10)
    assert len(pending) == 1 + 2 * 10
    assert pending.find("t", "mine", 1.0)
    assert not pending.find("t", "989", 1.0)
    assert pending.find("t", "990", 1.0)


def test_of_an_id_that_is_used_again_the_later_answer_counts_and_each_models():
    pending = Pending()
    later, shadow = kept("r", at=1.0), kept("r", model="shadow")
    for each in (kept("r"), shadow, later):
        pending.keep(each, 10)
    assert pending.find("t", "r", 2.0) == [shadow, later]
    for number in range(10):
        pending.keep(kept("r", model=f"m{number}"), 10)
    assert len(pending.find("t", "r", 2.0)) == 4


def test_a_model_that_is_watched_no_more_takes_its_answers_along():
    pending = Pending()
    pending.keep(kept("r"), 10)
    pending.retain(["other"])
    assert len(pending) == 0
