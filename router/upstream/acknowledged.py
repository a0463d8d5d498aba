"""How much of what was sent the peer's kernel has taken: what it has not, no peer can have read."""

import asyncio
import socket
import struct

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
_BYTES_ACKED = struct.Struct("=Q")
_AT = 120
"""Where `tcpi_bytes_acked` stands in Linux's `struct tcp_info`."""
_OF_HANDSHAKE = 1
"""The kernel counts the handshake's SYN as a byte."""


def acknowledged_bytes(transport: asyncio.Transport) -> int | None:
    """Bytes of the connection that the peer has acknowledged; None where nobody can tell.

    That is on a Unix socket, and on systems other than Linux. Bytes of TLS are those on the wire.
    """
    sock = transport.get_extra_info("socket")
    if _TCP_INFO is None or sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _AT + _BYTES_ACKED.size)
    except OSError:
        return None
    if len(info) < _AT + _BYTES_ACKED.size:
        return None
    acked: int = _BYTES_ACKED.unpack_from(info, _AT)[0]
    return acked - _OF_HANDSHAKE
