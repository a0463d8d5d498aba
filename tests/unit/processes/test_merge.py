from typing import Any

import pytest

from router.processes.merge import ProcessState, merged_status


def endpoint(id_: str, in_flight: int = 0, *, local: bool = False) -> dict[str, Any]:
    return {
        "id": id_, "state": "ready", "in_flight": in_flight, "capacity": 4, "local": local,
        "good_answers": 1, "errors": 0, "set_aside": 0,
    }  # fmt: skip


def function(**changes: Any) -> dict[str, Any]:
    return {
        "enabled": True, "breaker_open": False, "in_flight": 1, "max_concurrency": 4, "queued": 0,
        "calls": 10, "cold_calls": 2, "p_cold": 0.5, "environments_idle": 1, **changes,
    }  # fmt: skip


def model(name: str = "m", **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "load_rps": 5.0, "replicas_wanted": 1, "replicas_ready": 1,
        "replicas_billed": 0, "queued": 1, "endpoints": [], "serverless": function(),
        "cost_usd": {"serverless": 0.5, "warm_busy": 0.0}, "split": {"pool": 3, "serverless": 1},
        "reasons": {"warm_capacity": 3}, "decisions": {}, "rules": {"r": 3}, "captive_requests": 1,
        "alternatives_usd": {"always_serverless": 1.0}, "recent": recent(), **changes,
    }  # fmt: skip


def recent(p99_ms: float | None = 20.0) -> dict[str, Any]:
    return {
        "requests": 4, "p50_ms": 1.0, "p99_ms": p99_ms, "reasons": {"spillover": 4},
        "objective": {"met": 3},
    }  # fmt: skip


def process(number: int, *models: dict[str, Any], leads: bool = False, **changes: Any) -> Any:
    document = {
        "models": list(models or [model()]),
        "canaries": [],
        "shadows": [],
        "shared_state": {"leader": leads, "peers": 1},
        "config": {"hash": "h", "last_error": None},
        "longest_stall_ms": {"work": 1.0, "collection": 0.5},
        "draining": False,
        "in_flight": 2,
        "connections": 3,
        **changes,
    }
    return ProcessState(number, 100 + number, 0, document)


SILENT = ProcessState(9, None, 4, None)


def test_what_each_counts_is_added_up():
    status = merged_status([process(1), process(2), SILENT])
    found = status["models"][0]
    assert (status["in_flight"], status["connections"]) == (4, 6)
    assert found["queued"] == 2
    assert found["cost_usd"] == {"serverless": 1.0, "warm_busy": 0.0}
    assert found["split"] == {"pool": 6, "serverless": 2}
    assert found["reasons"] == {"warm_capacity": 6}
    names = ("in_flight", "max_concurrency", "calls", "cold_calls")
    assert [found["serverless"][name] for name in names] == [2, 8, 20, 4]


def test_the_last_minute_is_that_of_all_and_its_times_are_the_slowests():
    other = model(recent=recent(p99_ms=70.0), alternatives_usd={"always_warm": 2.0})
    (found,) = merged_status([process(1), process(2, other)])["models"]
    assert found["recent"] == {
        "requests": 8, "p50_ms": 1.0, "p99_ms": 70.0, "reasons": {"spillover": 8},
        "objective": {"met": 6},
    }  # fmt: skip
    assert found["alternatives_usd"] == {"always_serverless": 1.0, "always_warm": 2.0}
    assert (found["rules"], found["captive_requests"]) == ({"r": 6}, 2)


def test_what_all_know_is_the_leaders_word():
    status = merged_status(
        [
            process(1, model(load_rps=1.0, replicas_wanted=0)),
            process(2, model(load_rps=7.0, replicas_wanted=3), leads=True),
        ]
    )
    assert (status["models"][0]["load_rps"], status["models"][0]["replicas_wanted"]) == (7.0, 3)
    assert status["shared_state"]["leader"] is True


def test_an_endpoint_is_listed_once_with_the_requests_of_all():
    one = model(endpoints=[endpoint("a", 1, local=True), endpoint("b", 2)], replicas_billed=2)
    other = model(endpoints=[endpoint("a", 3), endpoint("c", 4)])
    found = merged_status([process(1, other), process(2, one, leads=True)])["models"][0]
    assert [(e["id"], e["in_flight"], e["local"]) for e in found["endpoints"]] == [
        ("a", 4, True), ("b", 2, False), ("c", 4, False),
    ]  # fmt: skip
    assert found["replicas_billed"] == 2


def test_a_model_that_only_some_have_yet_is_no_error():
    status = merged_status([process(1, model("m"), model("new"), leads=True), process(2)])
    assert [found["queued"] for found in status["models"]] == [2, 1]


def test_a_model_without_a_function_has_none():
    status = merged_status([process(1, model(serverless=None)), process(2, model(serverless=None))])
    assert status["models"][0]["serverless"] is None


def test_the_longest_stall_is_that_of_any_process():
    other = {"work": 0.5, "collection": 2.0}
    status = merged_status([process(1), process(2, longest_stall_ms=other)])
    assert status["longest_stall_ms"] == {"work": 1.0, "collection": 2.0}


@pytest.mark.parametrize(("second", "expected"), [(True, True), (False, False)])
def test_all_drain_or_it_is_not_draining(second: bool, expected: bool):
    status = merged_status([process(1, draining=True), process(2, draining=second)])
    assert status["draining"] is expected


def test_one_open_breaker_and_one_error_are_shown():
    broken = model(serverless=function(breaker_open=True))
    config = {"hash": "h", "last_error": "line 1"}
    status = merged_status([process(1, leads=True), process(2, broken, config=config)])
    assert status["models"][0]["serverless"]["breaker_open"] is True
    assert status["config"]["last_error"] == "line 1"


def test_every_process_is_listed_the_silent_too():
    table = merged_status([process(1, leads=True), SILENT])["processes"]
    assert [(found["number"], found["answers"], found["leader"]) for found in table] == [
        (1, True, True),
        (9, False, False),
    ]
    assert table[1]["restarts"] == 4


def test_with_nobody_there_the_document_says_so():
    status = merged_status([SILENT])
    assert (status["models"], status["processes"][0]["answers"]) == ([], False)


def canary(state: str = "running", requests: int = 0, **changes: Any) -> dict[str, Any]:
    window = {"requests": requests, "failed": 1, "p95_ms": None}
    return {
        "rule": "r", "state": state, "rollbacks": int(state == "rolled_back"),
        "window": {"stable": window, "canary": {**window, "p95_ms": 3.0}}, **changes,
    }  # fmt: skip


def test_a_canary_shows_the_process_that_has_rolled_it_back():
    found = merged_status(
        [
            process(1, leads=True, canaries=[canary(requests=5, share_percent=5)]),
            process(2, canaries=[canary("rolled_back", requests=7, share_percent=0)]),
            process(3),
        ]
    )["canaries"]
    window = {"requests": 12, "failed": 2}
    assert found == [
        {
            "rule": "r", "state": "rolled_back", "share_percent": 0, "rollbacks": 1,
            "rolled_back_in": 1,
            "window": {
                "stable": {**window, "p95_ms": None}, "canary": {**window, "p95_ms": 3.0},
            },
        }
    ]  # fmt: skip


def test_a_shadow_is_listed_once_with_the_copies_of_all():
    def shadow(ok: int, difference: float, text: str | None) -> dict[str, Any]:
        return {
            "model": "s", "in_flight": 1, "bytes_kept": 10, "copies": {"ok": ok},
            "comparisons": {"match": ok}, "max_difference": difference, "last_mismatch": text,
        }  # fmt: skip

    first, second = shadow(2, 0.5, None), shadow(3, 0.25, "r: differs")
    status = merged_status([process(1, shadows=[first], leads=True), process(2, shadows=[second])])
    assert status["shadows"] == [{**shadow(5, 0.5, "r: differs"), "in_flight": 2, "bytes_kept": 20}]
