"""What a model's counters say of requests that were counted together."""

from workers.statistics import Statistics, Timing

REQUESTS = [(1, Timing(0, 5, 30, 7)), (2, Timing(0, 6, 40, 8)), (1, Timing(0, 4, 20, 9))]


def test_requests_counted_together_add_up_as_those_counted_one_by_one() -> None:
    together, apart = Statistics(), Statistics()
    together.record_alone(REQUESTS, 1_700)
    for number, (rows, timing) in enumerate(REQUESTS):
        apart.record_execution(rows, timing.infer_ns)
        apart.record_success(rows, timing, 1_698 + number)

    assert together.as_json("m", "1") == apart.as_json("m", "1")
    assert together.as_json("m", "1")["execution_count"] == 3
