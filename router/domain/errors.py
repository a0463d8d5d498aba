"""Every way a request can fail, as one exception each.

`gateway.responses` maps `code` to a status; nothing else knows HTTP statuses of errors.
"""

from dataclasses import dataclass
from typing import ClassVar


class RouterError(Exception):
    """A request could not be answered. `str(error)` is safe to show to the client."""

    code: ClassVar[str]


class InvalidRequestError(RouterError):
    """The request is malformed or asks for something that does not exist."""

    code = "invalid_request"


class BrokenBodyError(InvalidRequestError):
    """The body's framing is broken, so nothing after it on the connection can be understood."""


class HeadTooLargeError(RouterError):
    """A request's head, or what comes beside a body's data, is over the limit."""

    code = "head_too_large"


class UnsupportedMediaError(RouterError):
    """The body's encoding or media type is not one the router passes on."""

    code = "unsupported_media"


class UnauthorizedError(RouterError):
    """No key, or one that is not known."""

    code = "unauthorized"


class ForbiddenError(RouterError):
    """The key is known but may not use this model."""

    code = "forbidden"


class NotFoundError(RouterError):
    """The path is not part of the API."""

    code = "not_found"


class EndpointNotFoundError(NotFoundError):
    """The model's pool has no endpoint of that id."""


class UnsupportedError(RouterError):
    """The protocol has this path or method, and the gateway does not do what it asks for."""

    code = "unsupported"


class MethodNotAllowedError(RouterError):
    """The path exists, the method does not; `allowed` lists those that do."""

    code = "method_not_allowed"

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class ModelNotFoundError(RouterError):
    """No model of that name is configured."""

    code = "model_not_found"


class PayloadTooLargeError(RouterError):
    """The body is over the limit of every backend that could run it."""

    code = "payload_too_large"


class BodyTimeoutError(RouterError):
    """The client sends its body too slowly."""

    code = "body_timeout"


class RateLimitedError(RouterError):
    """The caller is over its own limit."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ShedError(RouterError):
    """The router has no capacity for this request: a subclass says what is missing."""

    code = "shed"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFullError(ShedError):
    """All replicas are busy and the queue is full."""

    code = "queue_full"


class QueueTimeoutError(ShedError):
    """The request waited as long as it may and no slot came free."""

    code = "queue_timeout"


class NoEndpointError(ShedError):
    """No backend can take the request now: nothing healthy, or nothing configured that could."""

    code = "no_endpoint"


class LoopDetectedError(RouterError):
    """The request has passed this gateway before: a backend's address leads back to it."""

    code = "loop_detected"


class PlaceClosedError(ShedError):
    """What the request waited for closed meanwhile: it is decided anew. No client sees this."""


class DeadlineExceededError(RouterError):
    """The client's deadline passed."""

    code = "deadline_exceeded"


class TooManyConnectionsError(ShedError):
    """The gateway has as many client connections as it may have."""

    code = "too_many_connections"


class NotDurableError(ShedError):
    """A job or a file cannot be written down so that a crash would leave it: it is not accepted."""

    code = "not_durable"


class TooManyJobsError(RateLimitedError):
    """The caller's tenant has as many jobs, files or bytes of them as it may have."""

    code = "too_many_jobs"


class UnfitEventError(InvalidRequestError):
    """No trigger is for the event, or it has not what the input of its trigger refers to."""

    code = "unfit_event"


class ConflictError(RouterError):
    """What is asked does not fit what is there: it has ended, or is of another kind."""

    code = "conflict"


class ClientClosedError(RouterError):
    """The client went away; only logs and metrics see this."""

    code = "client_closed"


class AttemptError(RouterError):
    """One attempt failed at a backend. `was_sent` says whether the backend may have run it.

    `is_certain` says that the same backend would fail the same request again, so that asking it
    once more would only cost time and money.
    """

    code = "upstream_failed"
    was_sent: ClassVar[bool] = True
    is_certain: ClassVar[bool] = False


class ConnectFailedError(AttemptError):
    """The connection could not be made: nothing was sent."""

    was_sent = False


class ResponseLostError(AttemptError):
    """The request was sent and the connection broke before the whole answer came."""


class UpstreamTimeoutError(AttemptError):
    """The backend did not answer within its own time limit."""

    code = "upstream_timeout"


class TimeLimitError(UpstreamTimeoutError):
    """The function's own time limit ended the call: this request takes longer than it may there."""

    is_certain = True


@dataclass(frozen=True, slots=True)
class OwnWords:
    """How a backend itself words a refusal that is meant for the client, and its headers.

    Without a `body` the gateway words it.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class UpstreamRejectedError(AttemptError):
    """The backend answered that it cannot take the request now (busy, draining, throttled).

    `own_words` are for the client, if no other place takes the request either; None where the
    gateway says it better.
    """

    code = "upstream_busy"
    was_sent = False

    def __init__(
        self,
        message: str,
        retry_after_s: float | None = None,
        own_words: OwnWords | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.own_words = own_words


class EncodedTooLargeError(AttemptError):
    """The payload turned out to be over the function's limit once encoded: nothing was sent."""

    was_sent = False
    is_certain = True


class UpstreamBrokenError(AttemptError):
    """The backend failed while it worked on the request (crash, gateway error, bad answer)."""


class AnswerTooLargeError(UpstreamBrokenError):
    """The answer is over what the function may give; a place without that limit might give it."""

    is_certain = True


class FunctionUnfitError(UpstreamBrokenError):
    """The function's environment does not start, or ends under the request: nothing answers."""

    is_certain = True


class ModelFailedError(AttemptError):
    """The model's own code failed on the request, and the platform words no answer for it.

    Stands for an answer of the model: it is passed on as one, and says nothing about the place.
    `billed_s` and `init_s` are what the platform says of the call, None where it does not say.
    """

    code = "model_failed"
    is_certain = True

    def __init__(
        self, message: str, billed_s: float | None = None, init_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.billed_s = billed_s
        self.init_s = init_s


class PlatformRefusedError(AttemptError):
    """The platform turned the call away for a reason that waiting does not heal.

    No valid credentials, no permission, no such function: nothing ran.
    """

    was_sent = False


class CallRefusedError(PlatformRefusedError):
    """The platform does not know the function, or turned the call away as one it never takes."""

    is_certain = True
