"""Have the running proxy of a state folder carry out `deploy` or `delete`."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ollama_proxy.base.errors import ConsentError, ProxyError, StartupError
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.server.control_socket import (
    SOCKET_NAME,
    ControlLine,
    ControlOrder,
    peer,
)

_CONNECT_S = 5.0
_LONGEST_LINE = 1 << 20

_LINES = msgspec.json.Decoder(ControlLine)


def ask_running(
    folder: Path, order: ControlOrder, *, timing: Timing = STANDARD
) -> Iterator[str] | None:
    """Return the steps that the folder's proxy reports; None if no proxy accepts any.

    Raises `StartupError` if another user listens there.
    """
    try:
        connection = _connected(folder, timing.order_silent_s)
    except OSError:
        return None
    return _steps(connection, order)


def _connected(folder: Path, silent_s: float) -> socket.socket:
    """Return a connection to the proxy of a folder. Raises `OSError` without one."""
    path = folder / SOCKET_NAME
    if not (hasattr(socket, "AF_UNIX") and stat.S_ISSOCK(path.lstat().st_mode)):
        raise OSError("there is no socket")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_CONNECT_S)
        connection.connect(os.fspath(path))
        _refuse_strangers(folder, peer(connection.fileno()))
        connection.settimeout(silent_s)
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_strangers(folder: Path, listener: int | None) -> None:
    if listener not in {None, 0, os.geteuid(), folder.stat().st_uid}:
        raise StartupError(
            f"user {listener} listens in the state folder {str(folder)!r}, who has"
            " neither this command nor that folder; see to the folder's rights"
        )


def _steps(connection: socket.socket, order: ControlOrder) -> Iterator[str]:
    """Send the order and yield each step; raise the error that ends it, if any."""
    with connection, connection.makefile("rb") as lines:
        try:
            # A proxy that refuses before it reads has closed the connection, and has
            # still sent its reason.
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(msgspec.json.encode(order) + b"\n")
            while raw := lines.readline(_LONGEST_LINE):
                line = _LINES.decode(raw)
                if line.done:
                    return
                if line.asks:
                    raise ConsentError(line.error, line.asks)
                if line.error:
                    kind = StartupError if line.refused else ProxyError
                    raise kind(line.error)
                if line.step:
                    yield line.step
        except (OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise ProxyError(
                f"the running proxy broke off ({why}); see its log, then give the order"
                " again: what it began is on record"
            ) from error
    raise ProxyError(
        "the running proxy ended in the middle of the order; see its log, then give the"
        " order again: what it began is on record"
    )
