"""A request that a shadow gets a copy of: an attempt like any other, whose answer is kept."""

from router.domain.decision import Reason
from router.domain.errors import AttemptError
from router.domain.ports import BackendResponse
from router.gateway.shortcut.fast_attempt import Attempt, Client, Ground
from router.gateway.shortcut.fast_route import Route
from router.gateway.shortcut.fast_stream import AnswerStream
from router.gateway.shortcut.known_heads import Sorted
from router.quality.keeping import KeptParts
from router.shadow.copies import Copy
from router.upstream.response_head import ResponseHead


class Copied(Attempt):
    """One request at one replica. The copy is sent once the answer is, or dropped."""

    __slots__ = ("_copy", "_parts")

    def __init__(
        self, ground: Ground, client: Client, head: Sorted, route: Route, reason: Reason, copy: Copy
    ) -> None:
        super().__init__(ground, client, head, route, reason)
        self._copy = copy
        self._parts: KeptParts | None = None

    @property
    def _is_copied(self) -> bool:
        return True

    def on_data(self, data: bytes) -> None:
        """As for any attempt; what is passed on is kept."""
        if self._parts is not None:
            self._parts.keep(data)
        super().on_data(data)

    def client_gone(self) -> None:
        """Nobody has its answer."""
        super().client_gone()
        self._copy.drop()

    def _reply(self, response: ResponseHead, body: bytes) -> None:
        self._copy.watch(BackendResponse(response.status, response.headers, body))
        super()._reply(response, body)
        self._copy.send()

    def _begin_stream(self, head: ResponseHead) -> None:
        self._parts = self._copy.parts(BackendResponse(head.status, head.headers, b""))
        super()._begin_stream(head)

    def _end_stream(self, stream: AnswerStream, error: AttemptError | None) -> None:
        super()._end_stream(stream, error)
        if error is None:
            self._copy.send()
        else:
            self._copy.drop()

    def _go_on_after(self, error: AttemptError) -> None:
        self._copy.drop()  # whoever goes on begins it anew
        super()._go_on_after(error)
