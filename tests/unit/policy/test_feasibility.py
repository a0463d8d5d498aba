import pytest

from router.domain.decision import Cause
from router.domain.snapshot import ServerlessLimits
from router.policy.feasibility import (
    EVENT_OVERHEAD_BYTES,
    encoded_bytes,
    pool_cause,
    serverless_cause,
)
from tests.fakes.builders import LIMITS, make_pool, make_request, make_serverless

ROOM = LIMITS.max_payload_bytes - EVENT_OVERHEAD_BYTES


@pytest.mark.parametrize(
    ("payload_bytes", "is_text", "expected"),
    [
        (300, True, 300 + EVENT_OVERHEAD_BYTES),
        (0, False, EVENT_OVERHEAD_BYTES),
        (3, False, 4 + EVENT_OVERHEAD_BYTES),
        (4, False, 8 + EVENT_OVERHEAD_BYTES),
    ],
    ids=["text stays as it is", "nothing", "three bytes become four", "base64 pads"],
)
def test_encoded_size(payload_bytes, is_text, expected):
    request = make_request(payload_bytes=payload_bytes, is_text=is_text)
    assert encoded_bytes(request) == expected


@pytest.mark.parametrize(
    ("request_facts", "facts", "cause"),
    [
        ({}, {}, None),
        ({}, {"enabled": False}, Cause.DISABLED),
        ({"payload_bytes": ROOM}, {}, None),
        ({"payload_bytes": ROOM + 1}, {}, Cause.PAYLOAD),
        ({"payload_bytes": ROOM * 3 // 4 + 3, "is_text": False}, {}, Cause.PAYLOAD),
        ({"payload_bytes": ROOM * 3 // 4 - 3, "is_text": False}, {}, None),
        ({}, {"expected_s": 30.1}, Cause.TIMEOUT),
        ({}, {"expected_s": 30.0}, None),
        ({"stream": True}, {}, Cause.STREAM),
        ({"stream": True}, {"limits": ServerlessLimits(1 << 20, 30.0, True)}, None),
        ({}, {"breaker_open": True}, Cause.BREAKER_OPEN),
        ({}, {"in_flight": 19}, None),
        ({}, {"in_flight": 20}, Cause.CONCURRENCY),
        ({}, {"in_flight": 20, "queued": 100}, Cause.QUEUE_FULL),
        (
            {"payload_bytes": 2},
            {"in_flight": 20, "queued_bytes": (64 << 20) - 1},
            Cause.QUEUE_FULL,
        ),
        ({"payload_bytes": ROOM + 1}, {"breaker_open": True}, Cause.PAYLOAD),
    ],
    ids=[
        "an idle function takes it",
        "disabled",
        "text that just fits",
        "text one byte too long",
        "binary that fits only before base64",
        "binary that fits after base64",
        "expected to run into the time limit",
        "expected to just meet the time limit",
        "a stream where none can be",
        "a stream where it can be",
        "the circuit is open",
        "one call below the limit",
        "at the limit it can wait",
        "at the limit with a full queue",
        "at the limit with a queue full of bytes",
        "a hard limit is named before a passing one",
    ],
)
def test_serverless(request_facts, facts, cause):
    assert serverless_cause(make_request(**request_facts), make_serverless(**facts)) is cause


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({}, None),
        ({"enabled": False}, Cause.DISABLED),
        ({"free_slots": 0}, None),
        ({"free_slots": 0, "queued": 100}, Cause.QUEUE_FULL),
        ({"free_slots": 0, "queued_bytes": 64 << 20}, Cause.QUEUE_FULL),
        ({"ready": 0, "free_slots": 0, "wanted": 0}, Cause.NO_REPLICA),
        ({"ready": 0, "free_slots": 0, "wanted": 1}, Cause.STARTING),
        ({"ready": 0, "free_slots": 0, "can_start": False}, Cause.NO_ENDPOINT),
        ({"ready": 0, "free_slots": 0, "queued": 100, "wanted": 1}, Cause.QUEUE_FULL),
    ],
    ids=[
        "an idle replica takes it",
        "disabled",
        "all slots are busy: it can queue",
        "all slots are busy and the queue is full",
        "all slots are busy and the queue is full of bytes",
        "scaled to zero",
        "the first replica is starting",
        "nothing healthy and nobody starts any",
        "starting, with a full queue",
    ],
)
def test_pool(facts, cause):
    assert pool_cause(make_request(), make_pool(**facts)) is cause


def test_what_is_not_configured():
    assert serverless_cause(make_request(), None) is Cause.NOT_CONFIGURED
    assert pool_cause(make_request(), None) is Cause.NOT_CONFIGURED
