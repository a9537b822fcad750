"""Let a request wait for an instance, and keep its connection open meanwhile.

At first nothing is sent, so the response can still have any status. If the client
itself asked for a longer wait and accepts a stream, heartbeats follow: bytes that its
parser skips, so that no reverse proxy in between times out. From then on the status is
200, and a failure is reported in the stream's format.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from ollama_proxy.base.tasks import start_task
from ollama_proxy.core.http.headers import preferred_wait_s
from ollama_proxy.core.ollama.error_bodies import (
    SPOKE,
    heartbeat,
    in_band_error,
    stream_type,
)
from ollama_proxy.core.ollama.routes import Family
from ollama_proxy.core.waiting_order import Turn
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.waiters import Ticket
from ollama_proxy.server.aiohttp.response import close_if_unframed
from ollama_proxy.serving.client_writer import reset
from ollama_proxy.serving.hold_policy import HoldPolicy
from ollama_proxy.serving.interruptions import TELL_S


class Hold:
    """Lets one request wait for up to ``wait_s`` seconds, in the line ``turn``.

    ``response``: set once heartbeats have begun.
    """

    def __init__(
        self,
        request: web.Request,
        family: Family,
        policy: HoldPolicy,
        wait_s: float,
        turn: Turn,
        *,
        streams: bool,
    ) -> None:
        is_preferred = preferred_wait_s(request.headers) is not None
        self.response: web.StreamResponse | None = None
        self.ticket = Ticket(turn)
        self.wait_s = wait_s
        self.applied = int(self.wait_s) if is_preferred else None
        self.deadline = asyncio.get_running_loop().time() + self.wait_s
        self._beats = is_preferred and streams and wait_s > 0
        self._streams = streams
        self._request = request
        self._family = family
        self._policy = policy

    async def wait(self, leasing: Coroutine[Any, Any, Lease | None]) -> Lease | None:
        """Return what ``leasing`` does, with heartbeats meanwhile."""
        if not self._beats:
            return await leasing
        task = start_task(leasing, name="lease")
        try:
            pause_s = self._policy.silent_s if self.response is None else 0.0
            while not (await asyncio.wait({task}, timeout=pause_s))[0]:
                await self._beat()
                pause_s = self._policy.beat_s
            return task.result()
        except BaseException:
            await _let_go(task)
            raise

    async def _beat(self) -> None:
        if self.response is None:
            self.response = web.StreamResponse(headers=self._headers())
            close_if_unframed(self._request, self.response)
            await self.response.prepare(self._request)
        await self.response.write(heartbeat(self._family, self.ticket.position))

    def _headers(self) -> dict[str, str]:
        return {
            "Content-Type": stream_type(self._family),
            "Cache-Control": "no-store",
            SPOKE: "held",
            **self.added_headers,
        }

    @property
    def added_headers(self) -> dict[str, str]:
        """Return our headers on the response to a request that was held.

        ``X-Accel-Buffering`` keeps nginx and proxies like it from buffering a stream
        and its heartbeats.
        """
        if self.wait_s <= 0 or not self._streams:
            return self.confirmation
        return {**self.confirmation, "X-Accel-Buffering": "no"}

    @property
    def confirmation(self) -> dict[str, str]:
        """Return the header that tells a client how long a wait it was granted."""
        if self.applied is None:
            return {}
        return {"Preference-Applied": f"wait={self.applied}"}

    async def fail(self, message: str, request_id: str) -> web.StreamResponse:
        """End a response that has begun with an error in its stream."""
        assert self.response is not None  # noqa: S101 - the caller saw it begin
        error = in_band_error(self._family, message, request_id=request_id)
        await self.response.write(error)
        await self.response.write_eof()
        return self.response

    async def interrupt(self, message: str, request_id: str) -> web.StreamResponse:
        """End a response that has begun; a client that does not read it is reset."""
        try:
            async with asyncio.timeout(TELL_S):
                return await self.fail(message, request_id)
        except TimeoutError:
            reset(self._request)
            raise ConnectionResetError("the client takes nothing") from None


async def _let_go(task: asyncio.Task[Lease | None]) -> None:
    """End a wait whose client left; a lease it got in that moment is given back."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        lease = task.result()
        if lease is not None:
            lease.release()
