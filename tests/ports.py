"""Ports of this machine, for what can't choose its own.

A server of ours is told port 0 and asked where it listens. What is drawn here is for an
address where nobody is to answer, and for a program that must be given a number and
does not tell which one the system chose (Caddy, Ollama).
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
    gives the port to nobody else, as it would give one that was let go.
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
    """Keep two ports in a row, for what takes the next one by itself; return the first.

    Raises `OSError` if the one after each of a hundred is taken.
    """
    for _ in range(100):
        with contextlib.suppress(OSError, OverflowError):
            return held_port(held_port() + 1) - 1
    raise OSError("there are no two free ports in a row")


def address_of_nobody() -> str:
    """Return an address of this machine at which connections are refused."""
    return f"127.0.0.1:{held_port()}"
