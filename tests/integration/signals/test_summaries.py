"""The word that gateways leave for each other: what is told is heard, and poison is not."""

import json
import zlib
from typing import Any

import pytest

from router.gateway.admin.summary import (
    MAX_BYTES,
    EndpointCounts,
    Teller,
    WordError,
    add,
    encode,
    heard,
    model_word,
    summed_tenants,
)
from router.telemetry.metrics import Seen
from router.turns import at_once

TELLER = Teller("1", 1e9, "abc", 1, 2)
TENANTS = {"requests": {"t": {"ok": 3.0}}, "cost_usd": {"t": {"serverless": 0.5}}}


def shown(name: str = "m", **changes: Any) -> dict[str, Any]:
    return {
        "name": name, "queued": 1, "captive_requests": 0,
        "decisions": {"serverless/spillover": 3}, "cost_usd": {"serverless": 0.5},
        "alternatives_usd": {}, "serverless": {
            "in_flight": 1, "max_concurrency": 4, "queued": 0, "calls": 3, "cold_calls": 1,
            "environments_idle": 1,
        },
        "endpoints": [{"id": "e", "in_flight": 1, "good_answers": 2, "errors": 3, "set_aside": 4}],
        **changes,
    }  # fmt: skip


def word(*models: dict[str, Any]) -> bytes:
    recent: dict[Seen, int] = {("took", 3): 2, ("reasons", "spillover"): 2}
    told = [model_word(each, recent) for each in models or (shown(),)]
    return at_once(encode(TELLER, TENANTS, told))


def test_what_is_told_is_heard_and_adds_up():
    found = at_once(heard(word()))
    assert (found.teller, found.left_out) == (TELLER, 0)
    assert found.models["m"].endpoints == {"e": EndpointCounts(1, 2, 3, 4)}
    assert found.models["m"].recent.seen == {("took", 3): 2, ("reasons", "spillover"): 2}
    own = shown()
    add(own, [found.models["m"], found.models["m"]])
    assert own["decisions"] == {"serverless/spillover": 9}
    assert (own["split"]["serverless"], own["reasons"]) == (9, {"spillover": 9})
    assert (own["serverless"]["calls"], own["endpoints"][0]["errors"]) == (9, 9)
    assert own["cost_usd"] == {"serverless": 1.5}
    assert summed_tenants([TENANTS, found.tenants])["requests"] == {"t": {"ok": 6.0}}


def test_a_word_has_a_bound_and_says_what_was_left_out():
    models = [
        shown(f"m{number}", decisions={f"pool/{number * 7919 ** each % 2**200}": each
              for each in range(100)}) for number in range(500)
    ]  # fmt: skip
    text = word(*models)
    assert len(text) <= MAX_BYTES
    found = at_once(heard(text))
    assert found.left_out > 0
    assert found.left_out + len(found.models) == 500


def poisoned(**changes: Any) -> bytes:
    lines = zlib.decompress(word()).split(b"\n")
    lines[2] = json.dumps({**json.loads(lines[2]), **changes}).encode()
    return zlib.compress(b"\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        b"", b"x", zlib.compress(b""), zlib.compress(b"{}\n{}\n{}\n"), word()[:-20],
        zlib.compress(b"{" * (64 << 20)), zlib.compress(b"\n" * 20_000),
        poisoned(name="a\x1b[2Jb"), poisoned(queued=-1), poisoned(queued=2**60),
        poisoned(cost_usd={"serverless": 1e300}), poisoned(cost_usd={"serverless": "much"}),
        poisoned(decisions={str(number): 1 for number in range(300)}),
        poisoned(decisions={"\n": 1}), poisoned(serverless={"in_flight": 1}),
    ],
    ids=range(15),
)  # fmt: skip
def test_poison_is_not_believed(text: bytes):
    with pytest.raises(WordError):
        at_once(heard(text))
