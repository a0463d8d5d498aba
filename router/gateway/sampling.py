"""Requests of which a sample is taken: kept as they pass, and handed on once they are answered.

The quality room reads them; nothing here can delay or fail the client's request.
"""

from router.domain.ports import BackendResponse, Payload
from router.domain.request import InferenceRequest
from router.gateway.variant import Assignment
from router.policy.canary import Side
from router.quality.keeping import ByteBudget, Keeper, KeptAnswer, KeptParts, KeptUpload, kept_body
from router.quality.quality import Quality
from router.quality.samples import Origin, Place, Sample
from router.quality.tensors import Answer
from router.runtime import ModelRuntime


def sampling(
    quality: Quality, model: ModelRuntime, request: InferenceRequest, body: Payload,
    assignment: Assignment | None,
) -> "Sampling | None":  # fmt: skip
    """The sample of a request that is about to be sent; None if it is not sampled."""
    if not request.is_inference or not quality.draws(model.tap, model.name, request.received_at):
        return None
    if not quality.has_room(model.name, request.payload_bytes):
        return None
    return Sampling(quality, model, request, body, assignment)


class Sampling:
    """A request of which a sample is taken. Whoever holds it calls `send` or `drop`."""

    is_begun_anew = False  # the tap has counted it

    def __init__(
        self, quality: Quality, model: ModelRuntime, request: InferenceRequest, body: Payload,
        assignment: Assignment | None,
    ) -> None:  # fmt: skip
        self._quality = quality
        self._model = model
        self._request = request
        self._assignment = assignment
        self.body = body if isinstance(body, bytes) else KeptUpload(body)
        self._answer: BackendResponse | None = None
        self._rest: KeptParts | None = None

    def watch(self, response: BackendResponse) -> None:
        """Keep the client's answer as it passes, as far as it may have a sample's size."""
        self._answer = response
        if response.rest is not None and response.status < 300:
            self._rest = response.rest = KeptAnswer(response.rest, self._keeper())

    def parts(self, response: BackendResponse) -> KeptParts:
        """As `watch`, for who passes on by itself what comes after `response`, and says so."""
        self._answer, self._rest = response, KeptParts(self._keeper())
        return self._rest

    def _keeper(self) -> Keeper:
        params = self._quality.params(self._model.name)
        return Keeper(ByteBudget(), params.max_bytes if params is not None else 0)

    def drop(self) -> None:
        """There is no answer of this model: nothing to read."""
        self._answer = self._rest = None

    def send(self) -> None:
        """The client has the answer of this model: have both read."""
        response, body = self._answer, kept_body(self.body)
        if response is None or response.status >= 300:
            return
        rest = b"" if self._rest is None else self._rest.content
        if rest is None or body is None or len(body) != self._request.payload_bytes:
            return  # too long, or answered before its end
        headers = {name.lower(): value for name, value in response.headers}
        request, settings = self._request, self._model.settings
        origin = Origin(
            self._model.name, request.version or settings.version or "", request.tenant,
            place_of(self._assignment),
        )  # fmt: skip
        self._quality.offer(
            Sample(
                origin, request.request_id, request.protocol.answers, request.headers, body,
                Answer(response.status, headers, response.body + rest), self._quality.now(),
            )
        )  # fmt: skip


def place_of(assignment: Assignment | None) -> Place | None:
    """A request's place in a canary's trial, as samples have it."""
    if assignment is None:
        return None
    trial = assignment.trial
    return Place(assignment.rule, Side(assignment.side), trial.epoch, trial.canary.rollback)
