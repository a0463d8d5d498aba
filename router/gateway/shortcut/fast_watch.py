"""A request that a shadow or the quality room gets as well: an attempt whose answer is kept."""

from typing import Protocol as Interface

from router.domain.decision import Reason
from router.domain.errors import AttemptError
from router.domain.ports import BackendResponse
from router.gateway.shortcut.fast_attempt import Attempt, Client, Ground
from router.gateway.shortcut.fast_route import Route
from router.gateway.shortcut.fast_stream import AnswerStream
from router.gateway.shortcut.known_heads import Sorted
from router.quality.keeping import KeptParts
from router.upstream.response_head import ResponseHead


class Watcher(Interface):
    """Who keeps a request and its answer: a `Copy` for a shadow, a `Sampling` for the quality room.

    It is told of the answer, and that the client has it, or that there is none.
    """

    @property
    def is_begun_anew(self) -> bool:
        """Whether whoever goes on after a failed attempt asks for another watcher."""
        ...

    def watch(self, response: BackendResponse) -> None:
        """The client gets this answer."""
        ...

    def parts(self, response: BackendResponse) -> KeptParts:
        """The client gets this answer; what is kept of the rest of its body."""
        ...

    def send(self) -> None:
        """The client has its answer."""
        ...

    def drop(self) -> None:
        """The client has none, or not from here."""
        ...


class Watched(Attempt):
    """One request at one place; `of` is what an `Attempt` takes."""

    __slots__ = ("_parts", "_watcher")

    def __init__(self, of: tuple[Ground, Client, Sorted, Route, Reason], watcher: Watcher) -> None:
        super().__init__(*of)
        self._watcher = watcher
        self._parts: KeptParts | None = None

    @property
    def _is_copied(self) -> bool:
        return self._watcher.is_begun_anew

    def on_data(self, data: bytes) -> None:
        """As for any attempt; what is passed on is kept."""
        if self._parts is not None:
            self._parts.keep(data)
        super().on_data(data)

    def client_gone(self) -> None:
        """Nobody has its answer."""
        super().client_gone()
        self._watcher.drop()

    def _reply(self, response: ResponseHead, body: bytes) -> None:
        self._watcher.watch(BackendResponse(response.status, response.headers, body))
        super()._reply(response, body)
        self._watcher.send()

    def _begin_stream(self, head: ResponseHead) -> None:
        self._parts = self._watcher.parts(BackendResponse(head.status, head.headers, b""))
        super()._begin_stream(head)

    def _end_stream(self, stream: AnswerStream, error: AttemptError | None) -> None:
        super()._end_stream(stream, error)
        if error is None:
            self._watcher.send()
        else:
            self._watcher.drop()

    def _go_on_after(self, error: AttemptError) -> None:
        self._watcher.drop()  # whoever goes on begins anew
        super()._go_on_after(error)
