"""Probe TCP connections: a vanished peer is noticed, a silent connection stays open.

A NAT or firewall drops a connection without traffic, some after 60 s, and a model may
read a prompt for minutes before its first token. Go probes each connection, so Ollama's
clients and server expect it; Linux's own default is 7 200 s.
"""

import socket
import sys
from typing import Final, Protocol

import aiohappyeyeballs

IDLE_S = 15
"""Silence before the first probe (``defaultTCPKeepAliveIdle``, ``net/dial.go``)."""

INTERVAL_S = 15
"""Between two probes (``defaultTCPKeepAliveInterval``)."""

COUNT = 9
"""Unanswered probes that end a connection (``defaultTCPKeepAliveCount``)."""


class HasOptions(Protocol):
    """Takes options: a socket, or what asyncio gives away of one."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """Set an option of the socket."""


def _options() -> tuple[tuple[int, int, int], ...]:
    """Return level, option and value of each; macOS calls the first time otherwise."""
    idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
    times = (
        (idle, IDLE_S),
        (getattr(socket, "TCP_KEEPINTVL", None), INTERVAL_S),
        (getattr(socket, "TCP_KEEPCNT", None), COUNT),
    )
    known = ((socket.IPPROTO_TCP, name, value) for name, value in times if name)
    return ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *known)


_OPTIONS = _options()


IS_INHERITED: Final = sys.platform == "linux"
"""Whether an accepted connection has the options of the socket that listens."""


def keep_alive(connection: HasOptions | None) -> None:
    """Have the kernel probe a TCP connection, with Go's intervals.

    Does nothing for a closed connection, or for anything but TCP.
    """
    if connection is None:
        return
    number = getattr(connection, "fileno", None)
    try:
        if number is None or isinstance(connection, socket.socket):
            _set_options(connection)
            return
        # uvloop's wrapper creates a socket for each option, at 2 µs each.
        made = socket.socket(fileno=number())
        try:
            _set_options(made)
        finally:
            made.detach()
    except OSError:  # macOS: EINVAL as soon as the peer has closed
        return


def _set_options(connection: HasOptions) -> None:
    for level, option, value in _OPTIONS:
        connection.setsockopt(level, option, value)


def kept_alive_socket(info: aiohappyeyeballs.AddrInfoType) -> socket.socket:
    """Return a new socket for an address, as aiohttp's connector asks for it."""
    family, kind, protocol, _, _ = info
    made = socket.socket(family, kind, protocol)
    keep_alive(made)
    return made
