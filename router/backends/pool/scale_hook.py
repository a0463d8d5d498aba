"""Tells somebody else how many replicas a pool should have, by a POST to their URL.

Repeats itself until it is heard, and from time to time while nothing changes. Never on behalf of a
request, and never decides the number.
"""

import asyncio
import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential, wait_random

from router.backends.serverless.refresher import CredentialError
from router.backends.serverless.secret_files import SecretFile
from router.domain.clock import Clock
from router.domain.errors import AttemptError
from router.upstream.address import Address
from router.upstream.client import Call, UpstreamClient

_log = logging.getLogger(__name__)

_WITHIN_S = 10.0
_REPEAT_S = 60.0
_PAUSES = wait_exponential(multiplier=0.5, max=30.0) + wait_random(0.0, 0.5)


class HookError(Exception):
    """The receiver did not take it."""


@dataclass(frozen=True, slots=True)
class HookTarget:
    """Where to post. The receiver is given the `secret`, or a signature made with it."""

    address: Address
    path: str
    secret: SecretFile | None
    is_signed: bool


class Wish(msgspec.Struct, frozen=True):
    """The body of a POST."""

    model: str
    replicas: int


class ScaleHook:
    """Posts the wanted number of replicas of one pool."""

    def __init__(
        self, model: str, target: HookTarget, upstream: UpstreamClient, wall_clock: Clock
    ) -> None:
        self._model = model
        self._target = target
        self._upstream = upstream
        self._wall_clock = wall_clock
        self._wanted: int | None = None
        self._changed = asyncio.Event()

    def want(self, replicas: int) -> None:
        """Post that number, now and from time to time. Must not block."""
        if replicas != self._wanted:
            self._wanted = replicas
            self._changed.set()

    async def run(self, is_ours: Callable[[], bool]) -> None:
        """Post until cancelled, while the wish is this gateway's to say."""
        while True:
            try:
                async with asyncio.timeout(_REPEAT_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            if not is_ours():
                self._wanted = None
            await self._retrying()(self._post)

    def _retrying(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type((HookError, AttemptError, CredentialError)),
            wait=_PAUSES,
            sleep=self._pause,
            before_sleep=self._report,
        )

    async def _pause(self, seconds: float) -> None:
        """Shorter if there is something new to say."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _report(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        _log.warning(
            "model %s: the scale hook did not take %s: %s", self._model, self._wanted, error
        )

    async def _post(self) -> None:
        self._changed.clear()
        if self._wanted is None:
            return
        body = msgspec.json.encode(Wish(self._model, self._wanted))
        headers = [("content-type", "application/json"), *await self._proof(body)]
        call = Call("POST", self._target.path, headers, body, is_idempotent=True)
        response = await self._upstream.send(self._target.address, call, timeout_s=_WITHIN_S)
        await response.aclose()
        if not 200 <= response.status < 300:
            raise HookError(f"it answered {response.status}")

    async def _proof(self, body: bytes) -> list[tuple[str, str]]:
        if self._target.secret is None:
            return []
        secret = (await self._target.secret.fetch()).value
        if not self._target.is_signed:
            return [("authorization", f"Bearer {secret}")]
        # The time is signed too, so that an old wish cannot be played again.
        at = str(int(self._wall_clock()))
        signed = hmac.new(secret.encode(), f"{at}.".encode() + body, sha256).hexdigest()
        return [("x-router-timestamp", at), ("x-router-signature", f"sha256={signed}")]
