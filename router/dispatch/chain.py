"""A model and those that may answer in its place: what each of them would be asked, and when.

Says when a request is passed on; the director passes it on.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from router.domain.decision import Backend, Decision, Reason, TraceStep
from router.domain.errors import AttemptError, NoEndpointError, RouterError, ShedError
from router.domain.ports import Payload
from router.domain.request import InferenceRequest
from router.policy.decide import decide
from router.policy.recovery import may_run_again
from router.runtime import ModelRuntime


@dataclass(frozen=True, slots=True)
class Link:
    """One model of a fallback chain, with the request as that model would be asked.

    The chain is the model that the client named, then its `fallback` models in order. `rewrite`
    puts this model's name into a body that names the model; None where bodies do not.
    """

    model: ModelRuntime
    request: InferenceRequest
    rewrite: Callable[[bytes], Awaitable[bytes]] | None = None

    async def body(self, body: Payload) -> Payload:
        """The body as this model gets it."""
        if self.rewrite is None or not isinstance(body, bytes):
            return body
        return await self.rewrite(body)


def is_left_to_the_next(decision: Decision) -> bool:
    """Whether a model that has a stand-in leaves the request to it rather than wait.

    Another model answers sooner than endpoints that failed, or a function whose circuit is open,
    may come back.
    """
    is_function = decision.backend is Backend.SERVERLESS
    failed = Reason.BREAKER_OPEN if is_function else Reason.NO_ENDPOINT
    return decision.hold and decision.reason is failed


def may_pass_on(error: RouterError, request: InferenceRequest, body: Payload, now: float) -> bool:
    """Whether the next model may be asked after this one could not serve the request.

    Not what is the client's mistake, nor what may have run and must not run twice.
    """
    if request.deadline is not None and now >= request.deadline:
        return False
    if not isinstance(body, bytes) and not body.is_untouched:
        return False
    if isinstance(error, AttemptError):
        return may_run_again(error, request)
    return isinstance(error, ShedError)


def failed_now(model: ModelRuntime, decision: Decision) -> NoEndpointError:
    """What is said for a model whose places have all failed, where the next one is asked."""
    if decision.backend is Backend.SERVERLESS:
        return NoEndpointError(f"the function of model {model.name} fails or asked for a pause")
    return NoEndpointError(f"model {model.name} has no healthy replica")


def explain_chain(
    chain: Sequence[tuple[ModelRuntime, InferenceRequest]], now: float
) -> tuple[ModelRuntime, Decision | None, list[TraceStep], RouterError | None]:
    """What would happen to such a request now, step by step.

    The model that has it in the end, as that model is asked; its decision, or why it refuses too.
    """
    trace: list[TraceStep] = []
    decision: Decision | None = None
    refusal: RouterError | None = None
    for place, (model, request) in enumerate(chain, 1):
        if place > 1:
            trace.append(TraceStep("fallback", model.name, "is asked next"))
        try:
            decision = decide(request, model.policy, model.state(request, now, {}), now, trace)
            if place < len(chain) and is_left_to_the_next(decision):
                raise failed_now(model, decision)
        except RouterError as error:
            trace.append(TraceStep("choice", "none", str(error)))
            decision, refusal = None, error
            if not isinstance(error, ShedError):
                break
        else:
            if place > 1:
                decision = replace(decision, reason=Reason.FALLBACK)
            return model, decision, trace, None
    return model, None, trace, refusal
