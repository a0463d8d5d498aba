"""Measures a function's cold starts by calling it: many calls at once need many environments.

Uses the caller, credentials and limits of the configuration, and sends nothing to a pool. Decides
only what the answers say; printing and files are the command line's.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from router.assembly.runtime import Parts, assemble, host_command, local_functions
from router.backends.serverless.cold_starts import FirstByteStep
from router.backends.serverless.function import Function
from router.backends.serverless.local_host import LocalFunctionHost
from router.background import Background
from router.domain.errors import AttemptError
from router.domain.request import InferenceRequest
from router.gateway.protocols.oip import OIP
from router.runtime import ModelRuntime, Runtime
from router.settings.loader import Loaded

_CREDENTIALS_WITHIN_S = 30.0
_HOST_WITHIN_S = 30.0
_MAX_POINTS = 101


class NotMeasurableError(Exception):
    """There is nothing to measure, or the platform does not tell."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent: `calls` at once in each round, then `warm` one after another."""

    calls: int = 10
    rounds: int = 1
    pause_s: float = 0.0
    warm: int = 10
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All calls."""
        return self.calls * self.rounds + self.warm


@dataclass(frozen=True, slots=True)
class Observed:
    """One answered call, until its first byte.

    `cold_start` and `init_s` are None where the platform does not tell them. `is_in_turn` says that
    it was made alone, after the call before it: it had a warm environment.
    """

    seconds: float
    cold_start: bool | None
    init_s: float | None
    is_in_turn: bool = False


@dataclass(frozen=True, slots=True)
class ColdReport:
    """What the calls showed, in seconds; `failures` counts the errors by their text.

    `by_time` calls were told warm from cold by their time alone, `untold` not at all.
    """

    cold: tuple[float, ...]
    warm: tuple[float, ...]
    init: tuple[float, ...]
    untold: int
    failures: dict[str, int]
    by_time: int = 0


def report_on(
    observed: list[Observed], failures: dict[str, int], cold_start_s: float = 1.0
) -> ColdReport:
    """Sort the calls. What a cold start adds is its call's time less that of a warm call.

    `cold_start_s` is what one is expected to add, where only the time can tell.
    """
    untold = sum(o.cold_start is None for o in observed)
    observed = _judged_by_time(observed, cold_start_s)
    still_untold = sum(o.cold_start is None for o in observed)
    warm = sorted(o.seconds for o in observed if o.cold_start is False)
    usual_s = median(warm) if warm else 0.0
    cold = [o for o in observed if o.cold_start]
    return ColdReport(
        cold=tuple(sorted(max(o.seconds - usual_s, o.init_s or 0.0) for o in cold)),
        warm=tuple(warm),
        init=tuple(sorted(o.init_s for o in cold if o.init_s is not None)),
        untold=still_untold,
        failures=failures,
        by_time=untold - still_untold,
    )


def _judged_by_time(observed: list[Observed], cold_start_s: float) -> list[Observed]:
    """Calls that do not tell, by the step from those made in turn, if there are any."""
    in_turn = [o.seconds for o in observed if o.is_in_turn and o.cold_start is not True]
    if not in_turn:
        return observed
    step = FirstByteStep(median(in_turn))
    for seconds in in_turn:
        step.is_cold(0, seconds, cold_start_s, expected_warm=True)

    def judged(one: Observed) -> Observed:
        if one.cold_start is not None:
            return one
        is_cold = not one.is_in_turn and step.is_cold(
            0, one.seconds, cold_start_s, expected_warm=False
        )
        return replace(one, cold_start=is_cold)

    return [judged(one) for one in observed]


def quantile(ordered: tuple[float, ...], share: float) -> float:
    """The value at that share of a sorted, non-empty sequence, interpolated."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def world_of(model: str, report: ColdReport, day: str, with_service_time: bool) -> dict[str, Any]:
    """A world file for `replay` with the distributions measured."""
    function: dict[str, Any] = {"cold_start_ms": _distribution(report.cold)}
    if with_service_time and report.warm:
        function["service_time_ms"] = _distribution(report.warm)
    return {
        "dated": day,
        "source": f"hybrid-router measure-cold, {len(report.cold)} cold and"
        f" {len(report.warm)} warm calls",
        "models": {model: {"serverless": function}},
    }


def _distribution(ordered: tuple[float, ...]) -> float | dict[str, list[float]]:
    if len(ordered) == 1:
        return round(ordered[0] * 1e3, 3)
    count = min(len(ordered), _MAX_POINTS)
    shares = [index / (count - 1) for index in range(count)]
    return {"empirical": [round(quantile(ordered, share) * 1e3, 3) for share in shares]}


async def measure(
    loaded: Loaded, parts: Parts, model: str, plan: Plan, on_call: Callable[[], None]
) -> ColdReport:
    """Make the calls; `on_call` is told of each that has ended. Raises NotMeasurableError."""
    runtime = assemble(loaded, parts)
    found = runtime.models.get(model)
    if found is None or found.serverless is None:
        raise NotMeasurableError(f"model {model} is not configured with a function")
    observed: list[Observed] = []
    failures: Counter[str] = Counter()
    limit_s = found.serverless.params.limits.timeout_s + 60.0
    call = _Call(found.serverless, _request(found, plan), plan.body, limit_s, parts)

    async def once(*, is_in_turn: bool) -> None:
        try:
            observed.append(await call(is_in_turn=is_in_turn))
        except AttemptError as error:
            failures[str(error)] += 1
        on_call()

    async with _running(runtime, parts):
        for number in range(plan.rounds):
            if number:
                await parts.sleep(plan.pause_s)
            await asyncio.gather(*(once(is_in_turn=False) for _ in range(plan.calls)))
        for _ in range(plan.warm):
            await once(is_in_turn=True)
    return report_on(observed, dict(failures), found.serverless.params.cold_start_s)


def _request(model: ModelRuntime, plan: Plan) -> InferenceRequest:
    action = "infer" if plan.body else ""
    return InferenceRequest(
        request_id="measure-cold",
        protocol=OIP,
        model=model.name,
        method="POST" if plan.body else "GET",
        action=action,
        path=OIP.path(action, model.settings.backend_name, None),
        payload_bytes=len(plan.body),
        received_at=0.0,
        headers=plan.headers,
        is_text="inference-header-content-length" not in plan.headers,
        is_idempotent=True,
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """One call after another with the same request."""

    function: Function
    request: InferenceRequest
    body: bytes
    limit_s: float
    parts: Parts

    async def __call__(self, *, is_in_turn: bool) -> Observed:
        started = self.parts.clock()
        response = await self.function.caller.call(self.request, self.body, self.limit_s)
        seconds = self.parts.clock() - started
        if response.rest is not None:
            # What is streamed tells at its end how it began.
            _ = [part async for part in response.rest]
        cold = response.cold_start
        if cold is None and response.environment_id is not None:
            cold = self.function.seen.is_new(response.environment_id)
        return Observed(seconds, cold, response.init_s, is_in_turn)


@asynccontextmanager
async def _running(runtime: Runtime, parts: Parts) -> AsyncIterator[None]:
    """The credentials' loops, and the function host of this machine if it is needed."""
    background = Background()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(parts.upstream.close)
        stack.push_async_callback(background.stop_all)
        for number, credential in enumerate(runtime.credentials.values()):
            background.start(f"credential {number}", credential.run)
            async with asyncio.timeout(_CREDENTIALS_WITHIN_S):
                await credential.was_tried.wait()
        if functions := local_functions(runtime.settings):
            drain_s = runtime.settings.server.drain_timeout_s
            command = host_command(parts.local_host, drain_s)
            host = LocalFunctionHost(
                parts.local_host, command, parts.upstream, parts.clock, drain_s
            )
            host.declare(functions, runtime.settings.workers.log)
            background.start("function host", host.run)
            async with asyncio.timeout(_HOST_WITHIN_S):
                await host.is_up.wait()
        yield
