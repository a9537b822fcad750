"""Accept `deploy` and `delete` for a running proxy, on a socket in its state folder.

Never over the listening port: its clients may use the models, and no more. Only the
proxy's own user and root have access, by the socket's mode and by the peer credentials
of the kernel. The socket exists while the proxy serves. A killed proxy leaves it
behind, and the next one, which holds the lock of the state folder, replaces it.

A caller sends one `ControlOrder`, a line of JSON, and receives `ControlLine`s.
"""

import asyncio
import contextlib
import os
import socket
import stat
import struct
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import ConsentError, ProxyError, StartupError
from ollama_proxy.base.tasks import scoped_task, start_task
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.fleet.redeployment import Redeployment

SOCKET_NAME: Final = "control.sock"

_LONGEST_PATH = 103 if sys.platform == "darwin" else 107
_LONGEST_ORDER = 16 * 1024
_MOST_CALLERS = 8
_END_S = 10.0
_HANG_UP_S = 1.0
_CREDENTIALS = struct.Struct("3i")


class ControlOrder(msgspec.Struct, frozen=True):
    """Holds an order, for the ``backend`` that the caller's settings mean."""

    order: Literal["deploy", "delete"]
    backend: str
    image: str | None = None
    replace: tuple[str, ...] = ()


class ControlLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """Holds one line of the response: a step, a heartbeat, or the result.

    ``refused``: this proxy can't carry out the order with its settings. ``asks``: the
    ids that a person must confirm.
    """

    step: str = ""
    error: str = ""
    refused: bool = False
    done: bool = False
    asks: tuple[str, ...] = ()


_ORDERS = msgspec.json.Decoder(ControlOrder)


Note = Callable[[str, str, str], None]
"""Writes an order down before it is carried out: the order, its image, the backend."""


class ControlSocket:
    """Carries out orders, each in the task of its connection; ``note``: see `Note`."""

    def __init__(
        self,
        redeployment: Redeployment,
        *,
        note: Note | None = None,
        timing: Timing = STANDARD,
    ) -> None:
        self._note = note
        self._redeployment = redeployment
        self._timing = timing
        self._callers: set[asyncio.Task[None]] = set()
        self._orders: set[asyncio.Task[None]] = set()

    def cancel(self) -> None:
        """Cancel the orders in progress; an app that they made is still stopped."""
        for order in self._orders:
            order.cancel()

    async def aclose(self) -> None:
        """Wait until the order under way has ended, as long as a proxy may take."""
        self.cancel()
        if self._callers:
            await asyncio.wait(self._callers, timeout=_END_S)

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry out the order of one connection and close it.

        The order has a task of its own: asyncio logs an error if a connection's own
        task is cancelled.
        """
        caller = asyncio.current_task()
        assert caller is not None  # noqa: S101 - a coroutine that runs
        order = start_task(self._answer(reader, writer), name="order")
        self._callers.add(caller)
        self._orders.add(order)
        try:
            await asyncio.wait({order})
        finally:
            self._orders.discard(order)
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_HANG_UP_S):
                    await writer.wait_closed()
            self._callers.discard(caller)

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        tale = _Tale(writer, self._timing)
        try:
            if (order := await self._read(reader, writer, tale)) is not None:
                await self._carry_out(order, tale)
        except Exception as error:
            structlog.get_logger().exception(log.TASK_CRASHED, task="deployment")
            said = f"the proxy failed: {type(error).__name__}"
            await tale.send(ControlLine(error=said))

    async def _read(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        tale: "_Tale",
    ) -> ControlOrder | None:
        """Return the order of a caller with the right to give one; refuse any other."""
        caller = peer(writer.get_extra_info("socket").fileno())
        refused = ""
        if caller is not None and caller not in {0, os.geteuid()}:
            refused = f"of its own user and of root, not of {caller}"
        elif len(self._callers) > _MOST_CALLERS:
            refused = f"of {_MOST_CALLERS} callers at once; try again later"
        if refused:
            said = f"the proxy takes orders {refused}"
            await tale.send(ControlLine(error=said, refused=True))
            return None
        try:
            async with asyncio.timeout(self._timing.order_read_s):
                return _ORDERS.decode(await reader.readline())
        except (ConnectionError, TimeoutError, ValueError) as error:
            said = (
                f"this is no order ({str(error) or 'none received'}); versions differ?"
            )
            await tale.send(ControlLine(error=said, refused=True))
            return None

    async def _carry_out(self, order: ControlOrder, tale: "_Tale") -> None:
        image, own = order.image, self._redeployment.backend_name
        refused = ""
        if order.backend != own:
            refused = (
                f"the running proxy deploys for {own!r}, and this command means"
                f" {order.backend!r}; give it the settings of the proxy, or stop the"
                " proxy to deploy for another offer"
            )
        elif bool(image) != (order.order == "deploy"):
            refused = "an image is deployed, and everything deleted"
        if refused:
            await tale.send(ControlLine(error=refused, refused=True))
            return
        if self._note is not None:
            self._note(order.order, image or "", order.backend)
        async with tale.beating():
            try:
                await self._redeployment.run(image, tale.tell, order.replace)
            except ConsentError as error:
                end = ControlLine(error=str(error), refused=True, asks=error.names)
            except ProxyError as error:
                is_refused = isinstance(error, StartupError)
                end = ControlLine(error=str(error), refused=is_refused)
            else:
                end = ControlLine(done=True)
        await tale.send(end)


class _Tale:
    """Sends lines to a caller; the order goes on if the caller leaves or hangs."""

    def __init__(self, writer: asyncio.StreamWriter, timing: Timing) -> None:
        self._writer = writer
        self._timing = timing
        self._is_heard = True

    async def tell(self, step: str) -> None:
        """Tell one step."""
        await self.send(ControlLine(step=step))

    async def send(self, line: ControlLine) -> None:
        """Send one line, if it is read within seconds."""
        if not self._is_heard:
            return
        try:
            async with asyncio.timeout(self._timing.order_tell_s):
                self._writer.write(msgspec.json.encode(line) + b"\n")
                await self._writer.drain()
        except (ConnectionError, TimeoutError):
            self._is_heard = False
            self._writer.transport.abort()

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Tell now and then, meanwhile, that the proxy is there."""
        async with scoped_task(self._beat(), name="beat"):
            yield

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._timing.order_beat_s)
            await self.send(ControlLine())


@contextlib.asynccontextmanager
async def listening(
    folder: Path,
    redeployment: Redeployment,
    *,
    note: Note | None = None,
    timing: Timing = STANDARD,
) -> AsyncIterator[ControlSocket]:
    """Accept orders on the folder's socket; the caller holds the folder's lock.

    ``note``: see `Note`. If the socket can't be made this is logged, and everything
    else works.
    """
    control = ControlSocket(redeployment, note=note, timing=timing)
    path = folder / SOCKET_NAME
    try:
        bound, mark = _bind(path)
    except OSError as error:
        structlog.get_logger().warning(
            log.CONTROL_SOCKET_MISSING,
            path=str(path),
            reason=f"{error.strerror or error}; `deploy` and `delete` ask for the proxy"
            " to be stopped",
        )
        yield control
        return
    try:
        server = await asyncio.start_unix_server(
            control.serve, sock=bound, backlog=_MOST_CALLERS, limit=_LONGEST_ORDER
        )
        try:
            yield control
        finally:
            server.close()
            await control.aclose()
    finally:
        bound.close()
        with contextlib.suppress(OSError):
            if _mark(path) == mark:
                path.unlink()


def _bind(path: Path) -> tuple[socket.socket, tuple[int, int]]:
    """Bind the socket, with mode 0600 from its first moment.

    Also returns the identity of its file. Raises `OSError`. Any other file of that
    name, such as a link, stays as it is.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system has no sockets in folders")
    length = len(os.fsencode(path))
    if length > _LONGEST_PATH:
        raise OSError(
            f"its path has {length} bytes and may have {_LONGEST_PATH}; set"
            " OLLAMA_PROXY_STATE_DIR to a shorter one"
        )
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # bind() creates the file by the umask; a chmod afterwards would come too late.
    umask = os.umask(0o177)
    try:
        bound.bind(os.fspath(path))
        return bound, _mark(path)
    except BaseException:
        bound.close()
        raise
    finally:
        os.umask(umask)


def _mark(path: Path) -> tuple[int, int]:
    """Return the identity of a file: device and inode."""
    known = path.lstat()
    return known.st_dev, known.st_ino


def peer(number: int) -> int | None:
    """Return the user id at the other end of a socket, from the kernel.

    None if the system has no ``SO_PEERCRED``.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    with socket.socket(fileno=os.dup(number)) as connection:
        raw = connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(raw)
    return int(uid)
