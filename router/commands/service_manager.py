"""Tells the service manager that started the gateway how it does: sd_notify(3) of systemd.

A datagram on the socket that NOTIFY_SOCKET names, for each change; where there is none, nothing.
A manager that is slow or gone never holds the gateway up.
"""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

Sleep = Callable[[float], Awaitable[None]]

_AGAIN_S = 0.1
_MOST_UNTOLD = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the manager asks for: where to tell it, and how soon it takes silence for a hang."""

    address: str
    watchdog_s: float | None


def wanted_by(environment: Mapping[str, str], pid: int) -> Wanted | None:
    """What NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID say to the process `pid`."""
    address = environment.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:  # sd_notify(3): a path, or a name without a file
        return None
    usec = environment.get("WATCHDOG_USEC", "")
    is_ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
    is_watched = usec.isascii() and usec.isdigit() and int(usec) > 0 and is_ours
    return Wanted(address, int(usec) / 1e6 if is_watched else None)


class ServiceManager:
    """The manager, until it is closed; without one (`wanted` None) telling it does nothing."""

    def __init__(self, wanted: Wanted | None) -> None:
        self._wanted = wanted
        self._is_ready = asyncio.Event()
        self._untold: deque[bytes] = deque(maxlen=_MOST_UNTOLD)
        self._socket: socket.socket | None = None
        if wanted is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @property
    def is_there(self) -> bool:
        """Whether a manager has started this process and wants to be told."""
        return self._wanted is not None

    def __enter__(self) -> "ServiceManager":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def ready(self, status: str) -> None:
        """Say that the gateway serves; or serves again, after `reloading`."""
        self._tell("READY=1", f"STATUS={status}")
        self._is_ready.set()

    def reloading(self) -> None:
        """Say that a reload begins; `ready` says that it has ended."""
        # CLOCK_MONOTONIC, by which the manager tells an answer from one to an earlier request.
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}", "STATUS=reading the configuration")

    def stopping(self) -> None:
        """Say that the gateway takes nothing new and lets what it has finish."""
        self._tell("STOPPING=1", "STATUS=draining")

    async def keep_alive(self, sleep: Sleep = asyncio.sleep) -> None:
        """Say twice in each watchdog period that the event loop turns; ends if nobody asks."""
        if self._wanted is None or self._wanted.watchdog_s is None:
            return
        await self._is_ready.wait()  # before that there is a limit on the start instead
        while True:
            if not self._untold:
                self._send(b"WATCHDOG=1")
            await sleep(self._wanted.watchdog_s / 2)

    def _tell(self, *lines: str) -> None:
        """Say it, once there is room for it: what has changed is not said again."""
        self._untold.append("\n".join(lines).encode())
        if len(self._untold) == 1:
            self._tell_all()

    def _tell_all(self) -> None:
        while self._untold:
            if not self._send(self._untold[0]):
                asyncio.get_running_loop().call_later(_AGAIN_S, self._tell_all)
                return
            self._untold.popleft()

    def _send(self, message: bytes) -> bool:
        """Whether the manager has it, or is gone; False while it has no room."""
        if self._socket is None or self._wanted is None or self._socket.fileno() < 0:
            return True
        address = self._wanted.address
        try:
            self._socket.sendto(message, "\0" + address[1:] if address.startswith("@") else address)
        except BlockingIOError:
            return False
        except OSError:
            return True  # it will see for itself what became of us
        return True
