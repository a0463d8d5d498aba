"""The figures the gateway is held to, and whether a run met them. Decides nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.benchmarks.results import Results, ratio
from tests.benchmarks.systems.registry import REFERENCE

OURS = "gateway"


@dataclass(frozen=True, slots=True)
class Versus:
    """A quantity of one system in a scenario must be at most `limit` times another system's."""

    title: str
    scenario: str
    quantity: str
    limit: float
    against: str = REFERENCE
    system: str = OURS


@dataclass(frozen=True, slots=True)
class AtMost:
    """A figure that is not from the rounds must be at most `limit`, in its own unit."""

    title: str
    finding: str
    limit: float


Target = Versus | AtMost

TARGETS: tuple[Target, ...] = (
    Versus("300 B, 32 connections: CPU/request to nginx", "infer-32", "cpu_us", 1.6),
    Versus("300 B, 32 connections: CPU/request to Envoy", "infer-32", "cpu_us", 0.8, "envoy"),
    Versus(
        "300 B, 32 connections: CPU/request to plain aiohttp",
        "infer-32", "cpu_us", 0.25, "plain-aiohttp",
    ),
    Versus("300 B, 1 connection: p50 to nginx", "infer-1", "p50_ms", 1.15),
    Versus("300 B, 1,000 connections: CPU/request to nginx", "infer-1000", "cpu_us", 1.2),
    Versus("300 B, 1,000 connections: p99 to nginx", "infer-1000", "p99_ms", 1.5),
    Versus("OpenAI 300 B, 32 connections: CPU/request to nginx", "openai-32", "cpu_us", 1.8),
    Versus("256 KiB: CPU/request to nginx", "256k-32", "cpu_us", 0.5),
    Versus("4 MiB: CPU/request to nginx", "4m-32", "cpu_us", 0.6),
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
    AtMost("decision, 50 rules and 100 models (us)", "decision", 5.0),
    AtMost("RSS growth, 64 x 4 MiB in flight (MB)", "in-flight-growth", 20.0),
    AtMost("RSS growth, 64 x 32 MiB in flight (MB)", "in-flight-growth-32m", 60.0),
    AtMost("RSS growth from 100 k to 1 M requests (%)", "memory-growth", 5.0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target beside what was measured."""

    title: str
    measured: float
    limit: float

    @property
    def met(self) -> bool:
        """Whether it is within the limit."""
        return self.measured <= self.limit


def verdicts(results: Results, targets: Iterable[Target] = TARGETS) -> list[Verdict]:
    """The targets that this run has figures for."""
    found = ((target, _measured(results, target)) for target in targets)
    return [
        Verdict(target.title, value, target.limit) for target, value in found if value is not None
    ]


def _measured(results: Results, target: Target) -> float | None:
    if isinstance(target, AtMost):
        named = (item.value for item in results.findings if item.name == target.finding)
        return next(named, None)
    result = next((item for item in results.scenarios if item.scenario == target.scenario), None)
    ours = result.row(target.system) if result is not None else None
    if result is None or ours is None or ours.failed:
        return None
    theirs = result.row(target.against)
    return ratio(ours, theirs, target.quantity)
