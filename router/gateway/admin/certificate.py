"""Warns ahead of the end of the data port's certificate, while there is time to renew it."""

import logging
from collections.abc import Callable
from typing import Any

from router.domain.clock import Clock, Sleep
from router.domain.events import EventKind, told

WARN_AHEAD_S = 14 * 86_400.0
_LOOK_EVERY_S = 60.0
_DAY_S = 86_400.0

_log = logging.getLogger(__name__)


def warning_of(expires_at: float, now: float) -> str | None:
    """What there is to say of a certificate that ends then; None as long as that is far off."""
    left_s = expires_at - now
    if left_s > WARN_AHEAD_S:
        return None
    if left_s <= 0:
        return "the certificate of the data port has expired: clients refuse it"
    return f"the certificate of the data port expires in {left_s / _DAY_S:.1f} days"


def described(expires_at: float | None, now: float) -> dict[str, Any] | None:
    """The certificate's part of the status document; None for plain HTTP."""
    if expires_at is None:
        return None
    return {"expires_at": expires_at, "warning": warning_of(expires_at, now)}


class CertificateWatch:
    """Logs the warning once a day, and again for another certificate. Times are wall clock."""

    def __init__(
        self, expires_at: Callable[[], float | None], wall_clock: Clock, sleep: Sleep
    ) -> None:
        self._expires_at = expires_at
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._told: tuple[float, int] | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await self._sleep(_LOOK_EVERY_S)

    def look(self) -> None:
        """Warn, if it is time to and this day has not been warned of."""
        expires_at, now = self._expires_at(), self._wall_clock()
        warning = warning_of(expires_at, now) if expires_at is not None else None
        if expires_at is None or warning is None:
            return
        day = (expires_at, int((expires_at - now) // _DAY_S))
        if day != self._told:
            self._told = day
            facts = told(EventKind.CERTIFICATE, expires_at=expires_at)
            _log.warning("%s", warning, extra=facts)
