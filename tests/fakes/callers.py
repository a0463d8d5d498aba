"""What fakes of functions' callers have in common."""

from router.domain.ports import BackendResponse
from router.domain.request import InferenceRequest
from router.upstream.address import Address
from router.upstream.client import Call
from router.upstream.response import UpstreamResponse


class WholeCalls:
    """A caller that has only `call`: nobody may send for it."""

    is_simple = False

    def prepare(self, request: InferenceRequest, body: bytes) -> tuple[Address, Call]:
        raise AssertionError("not asked of a caller that is not simple")

    def understand(self, answer: UpstreamResponse) -> BackendResponse:
        raise AssertionError("not asked of a caller that is not simple")
