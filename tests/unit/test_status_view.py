import pytest
from rich.console import Console

from router.commands.admin_client import AdminError, AdminPort
from router.commands.status_view import render

ENDPOINT = {
    "id": "m-1", "state": "ejected", "in_flight": 1, "slots": 4, "p50_ms": 12.25, "p99_ms": None,
    "errors": 3, "set_aside": 2, "why_aside": "its attempts fail", "address": "http://10.0.0.1",
}  # fmt: skip
MODEL = {
    "name": "m", "load_rps": 1.5, "replicas_ready": 1, "replicas_wanted": 2,
    "sizing_reason": "idle", "queued": 0, "panicking": True, "sized_by_others": True,
    "endpoints": [ENDPOINT],
    "serverless": {"breaker_open": True, "in_flight": 1, "max_concurrency": 8, "cold_calls": 0},
    "split": {"serverless": 1, "pool": 2}, "cost_usd": {"serverless": 0.5},
    "reasons": {"fallback": 1, "warm_capacity": 9}, "replicas_billed": 2,
    "rules": {"default": 10}, "slo": {"latency_ms": 250.0, "percentile": 99.0},
    "counters": {"start": 0.4, "stop": None}, "alternatives_usd": {"always_serverless": 0.75},
    "recent": {
        "requests": 4, "p50_ms": 20.0, "p99_ms": 900.0, "reasons": {"fallback": 4},
        "objective": {"late": 3, "met": 1},
    },
}  # fmt: skip
DOCUMENT = {
    "models": [MODEL], "canaries": [], "in_flight": 1, "draining": False,
    "config": {"hash": "0" * 64, "last_error": None},
    "shared_state": {"mode": "redis", "degraded": True},
}  # fmt: skip


def shown(document: object, model: str | None = None) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(render(document, model))  # type: ignore[arg-type]
    return capture.get()


def test_marks_are_explained_where_they_are() -> None:
    text = shown(DOCUMENT)
    assert "1/2?*" in text
    assert "1/8!" in text
    assert "! the function is not called for now" in text
    assert "? so many replicas are bad" in text
    assert "* something else sets the number of replicas" in text
    assert ">900.0" in text
    assert "> the last minute's p99 is above the objective" in text
    quick = {**MODEL["recent"], "p99_ms": 20.0}  # type: ignore[dict-item]
    well = {
        **MODEL, "panicking": False, "sized_by_others": False, "serverless": None, "recent": quick,
    }  # fmt: skip
    plain = shown({**DOCUMENT, "models": [well]})
    assert not {"!", "?", "*", ">"} & set(plain)


def test_one_model_is_shown_with_its_replicas_and_reasons() -> None:
    text = shown(DOCUMENT, "m")
    row = "m-1 ejected 1/4 12.2 3 2 its attempts fail"
    assert row in [" ".join(line.split()) for line in text.splitlines()]
    text = " ".join(text.split())
    assert "reasons: warm_capacity 9, fallback 1" in text
    assert "last minute: 4 requests, p50 20.0 ms, p99 900.0 ms; fallback 4" in text
    assert "objective: 99 % within 250 ms; last minute: late 3, met 1" in text
    assert "rules: default 10" in text
    assert "next replica is 40 % of the way to its start, the last - to its end" in text
    assert "USD: serverless 0.500000 USD instead: always_serverless 0.750000" in text
    with pytest.raises(AdminError, match="no model 'n' is configured; there are m"):
        render(DOCUMENT, "n")


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("http://a:9090/", "http://a:9090"),
        ("https://a", "https://a"),
        ("a:9090", "http://a:9090"),
        (":9090", "http://127.0.0.1:9090"),
        ("9090", "http://127.0.0.1:9090"),
    ],
)
def test_a_scheme_and_a_machine_may_be_left_out(given: str, asked: str) -> None:
    assert AdminPort(given).base == asked
