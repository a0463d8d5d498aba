import json

import pytest

from tests.benchmarks.children import BenchmarkError
from tests.benchmarks.load import LoadResult, parse

_TOLD = {
    "requests": 5000, "duration_us": 2_000_000,
    "p50_us": 400, "p99_us": 2500, "p999_us": 4000, "max_us": 9000,
    "connect_errors": 0, "read_errors": 0, "write_errors": 0, "timeouts": 0, "status_errors": 0,
}  # fmt: skip


def _output(**changes: int) -> str:
    return f"Running 2s test\n  1 threads\n\nRESULT {json.dumps({**_TOLD, **changes})}\n"


def test_a_result_is_in_seconds():
    assert parse(_output()) == LoadResult(
        5000, 2.0, p50_s=0.0004, p99_s=0.0025, p999_s=0.004, errors=0
    )


def test_every_kind_of_error_counts():
    kinds = ("connect_errors", "read_errors", "write_errors", "timeouts", "status_errors")
    counts = {kind: 10**power for power, kind in enumerate(kinds)}
    assert parse(_output(**counts)).errors == 11_111


def test_a_run_without_result_shows_what_was_said_instead():
    with pytest.raises(BenchmarkError, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:1 Connection refused\n")
