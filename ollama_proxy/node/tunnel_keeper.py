"""Keep idle tunnels open to the hub, for a machine behind NAT.

What the hub sends through a tunnel goes to the agent's own server, in this process: it
is guarded as on the port.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable

import aiohttp
import structlog

from ollama_proxy.base import log
from ollama_proxy.base.retry import GrowingPause
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.tcp_keep_alive import keep_alive
from ollama_proxy.upstream.tunnel_transport import MOST_FRAME, TunnelTransport

_SPARE = 2
_MOST = 66
_CONNECT_S = 15.0
_CLOSE_S = 1.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 15.0
_PROVEN_S = 30.0

_WORDS = {
    401: "it does not know this node's key; join again with a new node token",
    403: "it does not let this node in",
    404: "it takes no tunnels; it may be of a former version, or SERVER_URL be wrong",
    503: "it takes no more of them now",
}


class TunnelKeeper:
    """Keeps ``slots + 2`` idle tunnels; one that is taken into use is replaced at once.

    ``session`` sends the node's key. ``enter`` makes a protocol of the agent's server.
    At most 66 are open. A hub that is away, or closes what is idle, is tried again
    after 1 s, then 2 s, up to 15 s, each varied by a fifth.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        enter: Callable[[], asyncio.Protocol],
        *,
        slots: int,
        rng: random.Random,
    ) -> None:
        self._session, self._url = session, url
        self._enter = enter
        self._wanted = min(slots + _SPARE, _MOST)
        self._pause = GrowingPause(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, rng=rng)
        self._tasks = TaskOwner()
        self._spare = self._open = 0
        self._failures, self._retry_at, self._is_reached = 0, 0.0, False
        self._trouble = ""
        self._changed = asyncio.Event()
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Keep tunnels open until it is cancelled; then close them."""
        try:
            while True:
                await self._until_one_is_due()
                self._spare += 1
                self._open += 1
                self._tasks.spawn(self._keep_one(), name="tunnel")
        finally:
            await self._tasks.aclose()

    async def _until_one_is_due(self) -> None:
        """Wait until one more has to be opened, and may be."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            left_s = self._retry_at - loop.time()
            # While the hub is not reached one alone is tried; the rest wait for it.
            most = self._wanted if self._is_reached else 1
            is_due = self._spare < most and self._open < _MOST
            if is_due and left_s <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s if is_due else None):
                    await self._changed.wait()

    async def _keep_one(self) -> None:
        """Open a tunnel, and serve requests through it until it ends."""
        tunnel: TunnelTransport | None = None
        try:
            async with asyncio.timeout(_CONNECT_S):
                web_socket = await self._session.ws_connect(
                    self._url,
                    autoping=False,  # the transport answers
                    max_msg_size=2 * MOST_FRAME,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
                )
            tunnel = TunnelTransport(web_socket, self._taken)
            await self._serve(web_socket, tunnel)
        except aiohttp.WSServerHandshakeError as error:
            words = _WORDS.get(error.status, f"it answered {error.status}")
            self._failed(f"the hub takes no tunnel ({words})")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            words = str(error) or type(error).__name__
            self._failed(f"no tunnel to the hub could be opened ({words})")
        except Exception:
            self._failed("a tunnel crashed")  # so that the next one waits
            raise
        finally:
            self._open -= 1
            if tunnel is None or not tunnel.was_used:
                self._spare -= 1
            self._changed.set()

    async def _serve(
        self, web_socket: aiohttp.ClientWebSocketResponse, tunnel: TunnelTransport
    ) -> None:
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        keep_alive(web_socket.get_extra_info("socket"))
        self._is_reached = True
        self._changed.set()
        self._note("")
        try:
            await tunnel.run()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await web_socket.close()
        if tunnel.was_used or loop.time() - opened_at >= _PROVEN_S:
            self._failures = 0
        if not tunnel.was_used:
            self._failed("the hub closed a tunnel that was idle")

    def _taken(self) -> asyncio.Protocol:
        """Return the server's protocol for the request that begins on a tunnel."""
        self._spare -= 1
        self._changed.set()
        return self._enter()

    def _failed(self, trouble: str) -> None:
        """Note a failure: a pause begins, unless several fail at the same time."""
        now = asyncio.get_running_loop().time()
        self._is_reached = False
        if now >= self._retry_at:
            self._failures += 1
            self._retry_at = now + self._pause.after(self._failures)
        self._note(trouble)

    def _note(self, trouble: str) -> None:
        """Log a change: the first failure of a kind, the first tunnel that opens."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            self._log.warning(log.TUNNELS_AWAY, reason=trouble)
        else:
            self._log.info(log.TUNNELS_OPEN, reason="tunnels to the hub open again")
