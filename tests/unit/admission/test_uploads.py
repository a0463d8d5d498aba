"""How many slots of a pool may wait for bodies that are still coming, and whose."""

from dataclasses import dataclass

import pytest

from router.admission.uploads import Uploads


@dataclass(eq=False)
class Coming:
    """A body that is complete when the test says so."""

    is_complete: bool = False


def admitted(uploads: Uploads, tenant: str, weight: float = 1.0, *, slots: int, tries: int) -> int:
    """How many of so many uploads get a place."""
    return sum(uploads.enter(Coming(), tenant, weight, slots=slots, taken=0) for _ in range(tries))


@pytest.mark.parametrize(("slots", "most"), [(0, 0), (1, 0), (2, 1), (3, 1), (8, 4), (9, 4)])
def test_half_of_the_slots_at_most(slots, most):
    assert admitted(Uploads(), "", slots=slots, tries=20) == most


def test_what_other_gateways_hold_may_be_uploads_too():
    uploads = Uploads()
    assert not uploads.enter(Coming(), "", 1.0, slots=8, taken=4)
    assert uploads.enter(Coming(), "", 1.0, slots=8, taken=3)
    assert not uploads.enter(Coming(), "", 1.0, slots=8, taken=3)


@pytest.mark.parametrize("ends", ["complete", "left"])
def test_a_place_is_free_once_its_body_is_complete_or_gone(ends):
    uploads, first = Uploads(), Coming()
    assert uploads.enter(first, "", 1.0, slots=2, taken=0)
    assert not uploads.enter(Coming(), "", 1.0, slots=2, taken=0)
    if ends == "complete":
        first.is_complete = True
    else:
        uploads.leave(first)
        uploads.leave(first)  # nothing is given back twice
    assert admitted(uploads, "", slots=2, tries=2) == 1


@pytest.mark.parametrize(
    ("weight", "share"),
    [(1.0, 4), (3.0, 6), (0.01, 1)],
    ids=["the same weight: half", "three times the weight", "hardly any weight: still one"],
)
def test_tenants_that_upload_share_by_weight(weight, share):
    uploads = Uploads()
    assert uploads.enter(Coming(), "other", 1.0, slots=16, taken=0)
    assert admitted(uploads, "one", weight, slots=16, tries=16) == share
    left = 8 - 1 - share
    others = admitted(uploads, "other", slots=16, tries=16)
    assert others == min(left, max(0, int(8 / (1 + weight)) - 1))
