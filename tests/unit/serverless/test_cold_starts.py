"""Whether a call started cold, told by its time alone."""

import pytest

from router.backends.serverless.cold_starts import FirstByteStep

COLD_S = 1.0
CALLS: dict[str, list[tuple[float, bool, bool]]] = {
    # Seconds, whether a warm environment was believed to be there; whether it counts as cold.
    "a first call that takes as long as a start": [(1.1, False, True)],
    "a first call that is quick: it was warm already": [(0.1, False, False)],
    "warm calls": [(1.1, False, True), (0.1, True, False), (0.12, True, False)],
    "a start after a while": [(0.1, True, False), (0.11, True, False), (1.2, False, True)],
    "a start that was not expected": [(0.1, True, False), (0.11, True, False), (1.2, True, True)],
    "a little slower": [(0.1, True, False), (0.11, True, False), (0.5, False, False)],
    "slow by nature, whatever was configured": [(3.0, True, False), (3.1, True, False)],
    "slow by nature, and a start": [(3.0, True, False), (3.1, True, False), (9.0, False, True)],
    "the model gets slower for good": [
        (0.1, True, False), (0.1, True, False),
        (2.0, True, True), (2.0, True, True), (2.0, True, False), (2.0, True, False),
    ],
}  # fmt: skip


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_which_calls_count_as_cold(calls: list[tuple[float, bool, bool]]) -> None:
    step = FirstByteStep(0.05)
    found = [step.is_cold(300, took_s, COLD_S, expected_warm=warm) for took_s, warm, _ in calls]
    assert found == [is_cold for *_, is_cold in calls]


def test_sizes_are_told_apart() -> None:
    step = FirstByteStep(0.05)
    for _ in range(3):
        assert not step.is_cold(1 << 10, 0.1, COLD_S, expected_warm=True)
        assert not step.is_cold(1 << 24, 5.0, COLD_S, expected_warm=True)
    assert not step.is_cold(1 << 24, 5.0, COLD_S, expected_warm=False)
    assert step.is_cold(1 << 10, 5.0, COLD_S, expected_warm=False)


def test_the_noise_of_a_network_is_no_start() -> None:
    step = FirstByteStep(0.01)
    step.is_cold(300, 0.01, 0.0, expected_warm=True)
    assert not step.is_cold(300, 0.05, 0.0, expected_warm=False)
