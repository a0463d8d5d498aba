"""What happens to a gateway, in the words of the page, the log and `hybrid-router events`.

An event is a line of the process's own log that says what kind it is and which numbers caused it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class EventKind(StrEnum):
    """What an event is about."""

    CONFIG = "config"
    SIZING = "sizing"
    REPLICA = "replica"
    EJECTION = "ejection"
    CIRCUIT = "circuit"
    THROTTLED = "throttled"
    CANARY = "canary"
    SHARED_STATE = "shared_state"
    CERTIFICATE = "certificate"
    DELIVERY = "delivery"
    LOG = "log"
    PROCESS = "process"
    BUDGET = "budget"


EVENT_HELP: dict[EventKind, str] = {
    EventKind.CONFIG: "a key of the configuration changed (old, new, who), or a file was refused",
    EventKind.SIZING: "another number of replicas is wanted, with the arithmetic",
    EventKind.REPLICA: "a replica became ready, failed, or left",
    EventKind.EJECTION: "a replica is set aside for its failures, errors or times",
    EventKind.CIRCUIT: "a function is not called for a while, or is called again",
    EventKind.THROTTLED: "a platform refuses calls of a function",
    EventKind.CANARY: "a canary was rolled back or resumed, with what was found",
    EventKind.SHARED_STATE: "Redis is not reached, or reachable again",
    EventKind.CERTIFICATE: "the data port's certificate is about to end",
    EventKind.DELIVERY: "a callback or an event's answer was given up, with the cause",
    EventKind.LOG: "lines of the access log, or spans, are being lost, or no longer",
    EventKind.PROCESS: "a process of the gateway started, hung, or ended",
    EventKind.BUDGET: "a tenant has spent most of its budget (80 %), or all of it",
}

Fact = str | int | float | bool | None


class Told(NamedTuple):
    """An event's kind, whom it is about, and its numbers; its text is the log line's."""

    kind: EventKind
    model: str
    facts: Mapping[str, Fact]


def told(kind: EventKind, model: str = "", **facts: Fact) -> Mapping[str, object]:
    """What makes a log line an event: the `extra` of the call that logs it."""
    return {"event": Told(kind, model, facts)}
