"""Send the answer to a job: empty lines until there is one, then lines or events.

A client of the former hub reads the answer line by line and skips empty ones; its time-
out for a read is often 5 s. So from the first empty line on the status is 200, and what
goes wrong is the last line.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from ollama_proxy.base.tasks import start_task
from ollama_proxy.core.http.headers import media_type
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.nodes.job_events import as_events, wants_events
from ollama_proxy.core.ollama.error_bodies import JSON_TYPE, SPOKE
from ollama_proxy.server.aiohttp.reply import to_response
from ollama_proxy.server.aiohttp.response import begin_response, close_if_unframed
from ollama_proxy.serving.client_writer import Head, reset

_LINES, _EVENTS = "application/x-ndjson", "text/event-stream"


@dataclass(frozen=True, slots=True)
class _Head:
    """Holds the head of an answer whose body is rewritten."""

    status: int
    reason: str | None
    headers: CIMultiDictProxy[str]


class JobStream:
    """Writes the answer to one job.

    ``streams``: it comes line by line; ``is_events``: as server-sent events.
    ``pause_s``: between two empty lines. It is the response that a `ResponseRelay` has,
    once `begin` was called.
    """

    def __init__(self, request: web.Request, *, streams: bool, pause_s: float) -> None:
        self.is_events = streams and wants_events(request.headers.get("Accept", ""))
        self._streams = streams
        self._request = request
        self._pause_s = pause_s
        self._is_over = asyncio.Event()
        self._beats: asyncio.Task[None] | None = None
        self.response: web.StreamResponse | None = None

    @contextlib.asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Send empty lines meanwhile, until the answer begins."""
        self._beats = start_task(self._beat(), name="empty lines")
        try:
            yield
        finally:
            # Not if it has ended: a client that has it all may leave while we wait, and
            # would count as one that gave its job up.
            if not self._beats.done():
                self._beats.cancel()
                await asyncio.wait({self._beats})

    async def _beat(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client's leaving is seen to
            while not await self._ends_within(self._pause_s):
                if self.response is None:
                    self.response = await self._begun()
                await self.response.write(b"\n")

    async def _ends_within(self, limit_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._is_over.wait()
        return self._is_over.is_set()

    async def _begun(self) -> web.StreamResponse:
        """Begin a response that is an answer of whatever kind, or a refusal."""
        stream_type = _EVENTS if self.is_events else _LINES
        response = web.StreamResponse(
            headers={
                "Content-Type": stream_type if self._streams else JSON_TYPE,
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
                SPOKE: "held",
            }
        )
        close_if_unframed(self._request, response)
        await response.prepare(self._request)
        return response

    async def _end_beats(self) -> None:
        """Send no more empty lines; one that is being written is written first."""
        self._is_over.set()
        if self._beats is not None:
            await asyncio.wait({self._beats})

    async def begin(
        self, head: Head, added: Mapping[str, str], body: bytes
    ) -> "JobStream":
        """Begin the answer of a node, unless empty lines have: a `StartResponse`."""
        await self._end_beats()
        if self.response is None:
            rewritten = _as_events(head) if self.is_events else head
            self.response = await begin_response(self._request, rewritten, added, body)
        elif body:
            await self.response.write(body)
        return self

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers of the response that has begun."""
        assert self.response is not None  # noqa: S101 - `begin` was called
        return self.response.headers

    async def write(self, data: bytes) -> None:
        """Send words of our own."""
        assert self.response is not None  # noqa: S101 - `begin` was called
        await self.response.write(as_events(data) if self.is_events else data)

    async def write_eof(self) -> None:
        """End the response."""
        assert self.response is not None  # noqa: S101 - `begin` was called
        await self.response.write_eof()

    async def say(self, reply: Reply, limit_s: float) -> web.StreamResponse:
        """Answer by words of our own: with their status, or in the last line.

        A client that does not read them within ``limit_s`` is reset.
        """
        await self._end_beats()
        if self.response is None:
            return to_response(reply)
        try:
            async with asyncio.timeout(limit_s):
                await self.write(reply.body.rstrip(b"\n") + b"\n")
                await self.write_eof()
        except TimeoutError:
            reset(self._request)
            raise ConnectionResetError("the client takes nothing") from None
        return self.response


def _as_events(head: Head) -> _Head:
    """Return the head of an answer whose lines become events."""
    fields = CIMultiDict(head.headers)
    fields.popall("Content-Length", None)
    fields["Content-Type"] = _EVENTS
    return _Head(head.status, head.reason, CIMultiDictProxy(fields))


def are_lines(head: Head) -> bool:
    """Tell whether an answer consists of lines, which may become events."""
    return media_type(head.headers) != _EVENTS
