"""The figures the gateway is held to, and whether a run met them. Decides nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.benchmarks.results import Results, Row, middle, ratio
from tests.benchmarks.systems.registry import REFERENCE

OURS = "gateway"
WITH_KEYS = "gateway-keys"
BY_A_TASK = "gateway-ordinary-path"


@dataclass(frozen=True, slots=True)
class Versus:
    """A quantity of one system in a scenario must be at most `limit` times another system's.

    `baseline` is the other system's scenario, where that is another one.
    """

    title: str
    scenario: str
    quantity: str
    limit: float
    against: str = REFERENCE
    system: str = OURS
    baseline: str = ""


@dataclass(frozen=True, slots=True)
class AtMost:
    """A figure that is not from the rounds must be at most `limit`, in its own unit."""

    title: str
    finding: str
    limit: float


@dataclass(frozen=True, slots=True)
class Within:
    """A quantity of one system in a scenario must be at most `limit`, in its own unit."""

    title: str
    scenario: str
    quantity: str
    limit: float
    system: str = OURS


Target = Versus | AtMost | Within


_UNITS = {"cpu_us": "CPU/request", "p99_ms": "p99", "p999_ms": "p99.9"}


def _to_nginx(what: str, scenario: str, system: str = OURS, **limits: float) -> tuple[Versus, ...]:
    """Several quantities of one scenario."""
    return tuple(
        Versus(
            f"{what}: {_UNITS[quantity]} to {REFERENCE}",
            scenario,
            quantity,
            limit,
            REFERENCE,
            system,
        )
        for quantity, limit in limits.items()
    )


TARGETS: tuple[Target, ...] = (
    *_to_nginx("300 B, 32 connections", "infer-32", cpu_us=1.6, p99_ms=2, p999_ms=3),
    Versus("300 B, 32 connections: CPU/request to Envoy", "infer-32", "cpu_us", 0.8, "envoy"),
    Versus(
        "300 B, 32 connections: CPU/request to plain aiohttp",
        "infer-32", "cpu_us", 0.25, "plain-aiohttp",
    ),
    *_to_nginx("300 B, 4 connections", "infer-4", cpu_us=1.7, p99_ms=2, p999_ms=3),
    Versus("300 B, 4 connections: CPU/request to Envoy", "infer-4", "cpu_us", 0.9, "envoy"),
    Versus("300 B, 1 connection: p50 to nginx", "infer-1", "p50_ms", 1.15),
    *_to_nginx("300 B, 1,000 connections", "infer-1000", cpu_us=1.2, p99_ms=1.5),
    *_to_nginx("300 B, 1,000 clients at once", "cold-1000", cpu_us=2, p99_ms=2),
    AtMost("full rate again after a stall of 1 s of the upstream (s)", "stall-gateway", 1.0),
    *_to_nginx("OpenAI 300 B, 32 connections", "openai-32", cpu_us=1.8, p99_ms=2, p999_ms=3),
    *_to_nginx("with a deadline", "deadline-32", cpu_us=1.9, p99_ms=2, p999_ms=3),
    *_to_nginx(
        "with a key that has a rate", "key-32", WITH_KEYS, cpu_us=1.9, p99_ms=2, p999_ms=3
    ),
    *_to_nginx("under a canary rule", "canary-32", cpu_us=2.2, p99_ms=3),
    *_to_nginx("with a shadow", "shadow-32", cpu_us=2.2, p99_ms=3),
    *_to_nginx("with hedging", "hedge-32", cpu_us=2.2, p99_ms=3),
    Versus(
        "quality watched at 5 %: p99 to not watched",
        "quality-32", "p99_ms", 1.02, OURS, baseline="infer-32",
    ),
    *_to_nginx("function by URL", "function-32", cpu_us=2.2, p99_ms=3),
    *_to_nginx("AWS Lambda", "lambda-32", cpu_us=3.5, p99_ms=3),
    Versus("SSE: CPU/event to nginx unbuffered", "sse-128", "cpu_us", 2.0),
    AtMost("SSE: longest time until an event is passed on (ms)", "sse-longest-gateway", 1.0),
    Within(
        "what needs a task, 300 B, 32 connections: CPU/request (us)",
        "infer-32", "cpu_us", 60, BY_A_TASK,
    ),
    *_to_nginx("256 KiB", "256k-32", cpu_us=0.5),
    *_to_nginx("4 MiB", "4m-32", cpu_us=0.6),
    Versus(
        "Redis paused: CPU/request to Redis answering",
        "infer-32", "cpu_us", 1.1, OURS, "gateway-redis-paused",
    ),
    Versus(
        "Redis paused: p99 to Redis answering",
        "infer-32", "p99_ms", 1.1, OURS, "gateway-redis-paused",
    ),
    Versus(
        "Redis killed: CPU/request to Redis answering",
        "infer-32", "cpu_us", 1.1, OURS, "gateway-redis-killed",
    ),
    Versus(
        "Redis killed: p99 to Redis answering",
        "infer-32", "p99_ms", 1.1, OURS, "gateway-redis-killed",
    ),
    Versus(
        "worker, JSON: CPU/request to a bare aiohttp handler",
        "worker-json", "cpu_us", 1.0, "bare-onnx", "worker",
    ),
    Versus(
        "worker, binary: CPU/request to a bare aiohttp handler",
        "worker-binary", "cpu_us", 1.0, "bare-onnx", "worker",
    ),
    Within("worker, JSON: CPU/request (us)", "worker-json", "cpu_us", 120, "worker"),
    Within("worker, binary: CPU/request (us)", "worker-binary", "cpu_us", 90, "worker"),
    AtMost("decision, 50 rules and 100 models (us)", "decision", 5.0),
    AtMost("RSS growth, 64 x 4 MiB in flight (MB)", "in-flight-growth", 20.0),
    AtMost("RSS growth, 64 x 32 MiB in flight (MB)", "in-flight-growth-32m", 60.0),
    AtMost("RSS growth from 100 k to 1 M requests (%)", "memory-growth", 5.0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target beside what was measured; `scenario` is empty where it is from none."""

    title: str
    measured: float
    limit: float
    scenario: str = ""
    system: str = ""

    @property
    def met(self) -> bool:
        """Whether it is within the limit."""
        return self.measured <= self.limit


def verdicts(results: Results, targets: Iterable[Target] = TARGETS) -> list[Verdict]:
    """The targets that this run has figures for."""
    found = ((target, _measured(results, target)) for target in targets)
    return [
        Verdict(target.title, value, target.limit, *_place(target))
        for target, value in found
        if value is not None
    ]


def _place(target: Target) -> tuple[str, str]:
    return ("", "") if isinstance(target, AtMost) else (target.scenario, target.system)


def _measured(results: Results, target: Target) -> float | None:
    if isinstance(target, AtMost):
        named = (item.value for item in results.findings if item.name == target.finding)
        return next(named, None)
    ours = _row(results, target.scenario, target.system)
    if ours is None or ours.failed:
        return None
    if isinstance(target, Within):
        return middle(ours, target.quantity)
    theirs = _row(results, target.baseline or target.scenario, target.against)
    return ratio(ours, theirs, target.quantity)


def _row(results: Results, scenario: str, system: str) -> Row | None:
    result = next((item for item in results.scenarios if item.scenario == scenario), None)
    return result.row(system) if result is not None else None
