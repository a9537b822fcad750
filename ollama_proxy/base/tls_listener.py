"""Accept connections on TLS: bounded handshakes, and a reply to plain HTTP.

asyncio's own TLS server has no bound on handshakes in progress, and closes a connection
with plain HTTP on it without a word.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.plain_refusal import PlainRefusal
from ollama_proxy.base.tasks import TaskOwner

HANDSHAKE_S: Final = 10.0
"""Limit from the connection to the end of its handshake; one takes 1 to 3 round trips.
"""

SHUTDOWN_S: Final = 60.0
"""Limit for the unsent rest of an answer and the client's ``close_notify``."""

MOST_HANDSHAKES: Final = 1000
"""How many connections may be before the end of their handshake."""

YOUNG_S: Final = 2.0
"""For how long a handshake is not given up for a new connection."""

_PAUSE_S = 0.1
_HANDSHAKE = b"\x16"  # type of the record that a ClientHello comes in: RFC 8446 §5.1


class TlsListener:
    """Accepts connections of one bound socket, and does their handshakes.

    ``context`` returns what a handshake of this moment shows. ``connect`` makes the
    protocol of a connection, once its client has begun a handshake. If ``most``
    handshakes are in progress, the oldest is given up for a new connection unless it is
    younger than ``young_s``; new ones wait in the kernel until then. ``plain`` makes
    the protocol of a connection with plain HTTP on it.
    """

    def __init__(
        self,
        bound: socket.socket,
        context: Callable[[], ssl.SSLContext],
        connect: Callable[[], asyncio.Protocol],
        *,
        most: int = MOST_HANDSHAKES,
        handshake_s: float = HANDSHAKE_S,
        young_s: float = YOUNG_S,
        plain: Callable[[], asyncio.Protocol] = PlainRefusal,
    ) -> None:
        self._plain = plain
        self._bound = bound
        self._context = context
        self._connect = connect
        self._most = most
        self._handshake_s = handshake_s
        self._young_s = young_s
        self._tasks = TaskOwner()
        self._greeting: dict[asyncio.Task[None], float] = {}
        self._accepting: asyncio.Task[None] | None = None

    @property
    def handshakes(self) -> int:
        """Return how many are in progress."""
        return len(self._greeting)

    def start(self, backlog: int) -> None:
        """Begin to accept."""
        self._bound.listen(backlog)
        self._bound.settimeout(0.0)
        self._accepting = self._tasks.spawn(self._accept(), name="accept")

    def close(self) -> None:
        """Accept no more, and give up the handshakes in progress."""
        for task in (self._accepting, *self._greeting):
            if task is not None:
                task.cancel()
        self._bound.close()

    async def aclose(self) -> None:
        """Close it, and wait for its tasks."""
        self.close()
        await self._tasks.aclose()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(self._bound)
            except ConnectionError:
                continue  # it was gone before it was accepted
            except OSError:
                await asyncio.sleep(_PAUSE_S)  # no descriptors are left
                continue
            try:
                await self._make_room()
            except BaseException:
                client.close()
                raise
            task = self._tasks.spawn(self._greet(client), name="handshake")
            self._greeting[task] = loop.time()
            task.add_done_callback(self._greeting.pop)

    async def _make_room(self) -> None:
        """Wait until a connection may begin its handshake."""
        loop = asyncio.get_running_loop()
        while len(self._greeting) >= self._most:
            oldest = next(iter(self._greeting))
            if loop.time() - self._greeting[oldest] >= self._young_s:
                oldest.cancel()
            await asyncio.wait({oldest}, timeout=_PAUSE_S)
            await asyncio.sleep(0)  # its callback takes it out

    async def _greet(self, client: socket.socket) -> None:
        """See a connection through its handshake; its protocol has it from then on."""
        loop = asyncio.get_running_loop()
        begun_at = loop.time()
        try:
            async with asyncio.timeout(self._handshake_s):
                first = await _first_byte(client)
        except (OSError, TimeoutError):
            client.close()
            return
        except BaseException:
            client.close()
            raise
        left_s = max(0.001, self._handshake_s - (loop.time() - begun_at))
        try:
            if first == _HANDSHAKE:
                await self._shake_hands(client, left_s)
            elif first.isalpha():  # a method of HTTP
                await loop.connect_accepted_socket(self._plain, client)
            else:
                client.close()
        except (OSError, TimeoutError) as error:
            structlog.get_logger().debug(log.HANDSHAKE_FAILED, error=str(error))

    async def _shake_hands(self, client: socket.socket, left_s: float) -> None:
        """Do the handshake with the certificate of this moment."""
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(
            self._connect,
            client,
            ssl=self._context(),
            ssl_handshake_timeout=left_s,
            ssl_shutdown_timeout=SHUTDOWN_S,
        )


async def _first_byte(client: socket.socket) -> bytes:
    """Return the first byte that a client sends, and leave it there; "" if it leaves.

    Without a selector (Windows) the answer is that of TLS, unseen.
    """
    loop = asyncio.get_running_loop()
    client.settimeout(0.0)
    readable: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not readable.done():
            readable.set_result(None)

    with contextlib.suppress(BlockingIOError):
        return client.recv(1, socket.MSG_PEEK)
    try:
        loop.add_reader(client, note)
    except NotImplementedError:
        return _HANDSHAKE
    try:
        await readable
    finally:
        loop.remove_reader(client)
    return client.recv(1, socket.MSG_PEEK)
