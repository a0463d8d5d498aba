"""The closed vocabularies are complete: every value is explained, mapped and used as a label."""

from router.dispatch.outcomes import _OUTCOMES
from router.domain.decision import REASON_HELP, Outcome, Reason
from router.domain.errors import RouterError
from router.gateway.responses import STATUS


def _subclasses(cls: type[RouterError]) -> set[type[RouterError]]:
    found = set(cls.__subclasses__())
    return found.union(*(_subclasses(sub) for sub in found))


def test_every_reason_is_explained():
    assert set(REASON_HELP) == set(Reason)
    assert all(len(text) > 20 for text in REASON_HELP.values())


def test_every_error_has_a_code_with_a_status():
    for kind in _subclasses(RouterError):
        assert kind.code in STATUS, f"{kind.__name__} has no status"
        assert 400 <= STATUS[kind.code] < 600


def test_every_status_belongs_to_an_error():
    codes = {kind.code for kind in _subclasses(RouterError)} | {"internal_error"}
    assert set(STATUS) <= codes


def test_every_public_error_says_what_it_means():
    assert all(kind.__doc__ for kind in _subclasses(RouterError))


def test_every_failure_has_an_outcome_of_its_own():
    named = {outcome for _, outcome in _OUTCOMES}
    by_status = {Outcome.OK, Outcome.MODEL_ERROR, Outcome.INTERNAL_ERROR}
    assert named | by_status == set(Outcome)
