"""Ports of this machine, for servers that can't choose their own.

Our own servers get port 0 and report where they listen. The ports here are for
addresses without a server, and for programs that need a number and do not report the
one that the system chose (Caddy, Ollama).
"""

import atexit
import contextlib
import socket
from collections import deque

_HELD: deque[socket.socket] = deque(maxlen=200)


@atexit.register
def _let_go() -> None:
    while _HELD:
        _HELD.pop().close()


def held_port(number: int = 0) -> int:
    """Have the system choose a port, or take this one, and keep it.

    A socket stays bound to it on every address and does not listen: connections are
    refused, and a program can listen there (both have SO_REUSEADDR), while the system
    assigns the port to no other program, as it would with a released one.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind(("0.0.0.0", number))
    except OSError:
        held.close()
        raise
    if len(_HELD) == _HELD.maxlen:
        _HELD.popleft().close()
    _HELD.append(held)
    return int(held.getsockname()[1])


def two_held_ports() -> int:
    """Hold two ports in a row, for a program that also uses the next; return the first.

    Raises `OSError` if the port after each of a hundred is taken.
    """
    for _ in range(100):
        with contextlib.suppress(OSError, OverflowError):
            return held_port(held_port() + 1) - 1
    raise OSError("there are no two free ports in a row")


def address_of_nobody() -> str:
    """Return an address of this machine at which connections are refused."""
    return f"127.0.0.1:{held_port()}"
