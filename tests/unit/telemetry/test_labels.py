import pytest

from router.domain.errors import AttemptError
from router.telemetry.labels import AttemptResult, attempt_result


@pytest.mark.parametrize("kind", AttemptError.__subclasses__())
def test_every_attempt_error_has_a_name_of_its_own(kind: type[AttemptError]) -> None:
    others = [other for other in AttemptError.__subclasses__() if other is not kind]

    result = attempt_result(kind("what happened"))

    assert result is not AttemptResult.FAILED
    assert result not in [attempt_result(other("what happened")) for other in others]


def test_an_attempt_error_of_no_kind_is_just_a_failure() -> None:
    assert attempt_result(AttemptError("odd")) is AttemptResult.FAILED
