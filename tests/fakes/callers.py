"""What fakes of functions' callers have in common."""

from collections.abc import Collection

from router.domain.ports import BackendResponse
from router.domain.request import InferenceRequest
from router.upstream.response import UpstreamResponse


class WholeCalls:
    """A caller that has only `call`: nobody may send for it."""

    own_headers: frozenset[str] = frozenset()

    def prepared(self, request: InferenceRequest, own: Collection[str] = ()) -> None:
        """No calls that somebody else could send."""

    async def finished(self, answer: UpstreamResponse) -> BackendResponse:
        raise AssertionError("not asked of a caller whose calls nobody else sends")
