"""The sockets of the data port: opened, accepted from, closed.

Accepts by itself, a batch at a time, because uvloop's own server lets new clients wait while the
process is busy with those it has. Decides nothing about requests or about who may connect.
"""

import asyncio
import errno
import logging
import resource
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from router.gateway.http.client_limits import ClientLimits, Wait
from router.telemetry.repeats import BY_STRANGERS

_log = logging.getLogger(__name__)

_BACKLOG = 4096
_BATCH = 64
"""Connections accepted in one go; between batches, those that are open have their turn."""
_PAUSE_S = 0.5
_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class CannotListenError(OSError):
    """A port could not be opened; `key` is the setting that has its address."""

    def __init__(self, error: OSError, key: tuple[str, str]) -> None:
        super().__init__(error.errno, error.strerror)
        self.key = key


@contextmanager
def opening(*key: str) -> Iterator[None]:
    """What opens the port of a setting, such as `server.listen`. Raises CannotListenError."""
    group, name = key
    try:
        yield
    except OSError as error:
        raise CannotListenError(error, (group, name)) from error


class Listener:
    """Accepts the clients of one data port and gives each a protocol made by `make`.

    `tls` is asked for every connection (None: plain), so a new certificate is used from the next
    one on.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        limits: ClientLimits,
        tls: Callable[[], ssl.SSLContext | None],
    ) -> None:
        self._make = make
        self._limits = limits
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._is_pausing = False

    async def open(self, host: str, port: int, *, shared: bool = False) -> int:
        """Listen on every address of the host; returns the port. Raises OSError.

        With `shared`, other processes may listen on the same port, and the kernel spreads clients.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )  # fmt: skip
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                listening = socket.socket(family, kind, protocol)
                self._sockets.append(listening)
                bind(listening, address, shared=shared)
                listening.listen(_BACKLOG)
        except OSError as error:
            self.close()
            reason = (error.strerror or "unknown reason").lower()
            raise OSError(error.errno, f"{host}:{port}: {reason}") from error
        for listening in self._sockets:
            loop.add_reader(listening, self._accept, listening)
        bound: int = self._sockets[0].getsockname()[1]
        return bound

    def close(self) -> None:
        """Take no more clients than have connected by now."""
        loop = asyncio.get_running_loop()
        sockets, self._sockets = self._sockets, []
        for listening in sockets:
            if loop.remove_reader(listening):
                self._accept(listening)  # the kernel resets those that it still holds
            listening.close()

    async def abort(self) -> None:
        """Close, and give up on connections whose TLS handshake is under way."""
        self.close()
        starting = list(self._starting)
        for task in starting:
            task.cancel()
        if starting:
            await asyncio.wait(starting)

    def _accept(self, listening: socket.socket) -> None:
        # Also those that will be refused are open for a moment.
        for _ in range(min(_BATCH, max(1, self._limits.possible // 8))):
            try:
                client, _address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:  # gone before we came to it
                continue
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                self._pause(error)
                return
            self._take(client)

    def _take(self, client: socket.socket) -> None:
        client.setblocking(False)
        context = self._tls()
        if context is not None and not self._limits.has_room_for(len(self._starting)):
            client.close()  # it could not read a refusal before its handshake
            return
        task = asyncio.create_task(self._connect(client, context))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _connect(self, client: socket.socket, context: ssl.SSLContext | None) -> None:
        within_s = self._limits.allowed_s(Wait.HEADER) if context is not None else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make, client, ssl=context, ssl_handshake_timeout=within_s
            )
        except OSError as error:  # those of TLS are, too
            client.close()
            if context is not None:
                self._limits.handshakes_failed += 1
                _log.debug("a TLS handshake failed: %s", error, extra=BY_STRANGERS)

    def _pause(self, error: OSError) -> None:
        """Wait for descriptors to become free; until then the kernel keeps clients waiting."""
        if self._is_pausing:
            return
        self._is_pausing = True
        _log.error(
            "no client can be accepted for the moment: %s", error.strerror, extra=BY_STRANGERS
        )
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            loop.remove_reader(listening)
        loop.call_later(_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._is_pausing = False
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            loop.add_reader(listening, self._accept, listening)


def use_all_descriptors() -> None:
    """Let this process have as many open files, and so connections, as it may have at most."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems allow less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def descriptors() -> int:
    """How many open files this process may have."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def bind(listening: socket.socket, address: tuple[object, ...], *, shared: bool) -> None:
    """Give a socket its address, as a server does. Raises OSError."""
    listening.setblocking(False)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if listening.family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listening.bind(address)
