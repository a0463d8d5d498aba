"""A request that neither backend can start now: it waits for both, and gets the first slot.

Decides nothing: that both will do is the policy's word (`Decision.anywhere`).
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from router.admission.slots import SlotQueue, Waiter
from router.backends.pool.endpoint import Endpoint
from router.backends.pool.endpoints import Pool
from router.backends.serverless.function import Function
from router.dispatch.attempts import slots_of
from router.domain.clock import Clock
from router.domain.decision import Backend, Decision, Reason
from router.domain.errors import QueueFullError
from router.domain.ports import Lease
from router.domain.request import InferenceRequest
from router.runtime import ModelRuntime

_REASONS = {Backend.POOL: Reason.WARM_CAPACITY, Backend.SERVERLESS: Reason.SPILLOVER}
"""Why the backend has it that was not the one waited for in the first place."""

Place = Pool | Function
Taken = tuple[Decision, Lease]


class Wait:
    """One request that waits at the decision's backend, and at the other one."""

    def __init__(
        self,
        model: ModelRuntime,
        request: InferenceRequest,
        decision: Decision,
        clock: Clock,
        avoid: Collection[str],
    ) -> None:
        self._request = request
        self._decision = decision
        self._clock = clock
        self._avoid = avoid
        self._first: Place = slots_of(model, decision.backend)
        self._second: Place = slots_of(model, decision.backend.other)

    async def slot(self, timeout_s: float, pause_s: float) -> Taken:
        """The first slot there is, and the decision that fits it.

        The second place is asked only after `pause_s`. Raises QueueTimeoutError, or QueueFullError
        if there is no place to wait.
        """
        give_up_at = self._clock() + timeout_s
        self._first.call_for_capacity()
        while True:
            waiter = Waiter()
            self._first.join(waiter, self._request)
            later = self._join_second(waiter, pause_s)
            try:
                queue, slot = await waiter.slot(max(give_up_at - self._clock(), 0.0))
            finally:
                later()
            if (taken := self._taken(queue, slot)) is not None:
                return taken

    def _join_second(self, waiter: Waiter, pause_s: float) -> Callable[[], None]:
        """Wait at the second place too, from now on or after a pause; returns what undoes that."""
        if pause_s <= 0:
            self._join(waiter)
            return _nothing
        return asyncio.get_running_loop().call_later(pause_s, self._join, waiter).cancel

    def _join(self, waiter: Waiter) -> None:
        if waiter.is_done:
            return
        with suppress(QueueFullError):  # it has its first place
            self._second.join(waiter, self._request)
            self._second.pump(self._clock())

    def _taken(self, queue: SlotQueue[Any], slot: Endpoint | bool) -> Taken | None:
        decision, place = self._decision, self._first
        if queue is self._second.queue:
            backend = decision.backend.other
            decision = replace(decision, backend=backend, reason=_REASONS[backend])
            place = self._second
        lease = place.lease(self._request, cast(Any, slot), self._avoid)  # its own queue's
        return None if lease is None else (decision, lease)


def _nothing() -> None:
    """There is nothing to undo."""
