"""Hand one request to one instance, and its answer back, byte for byte.

Nothing is compressed, decompressed or re-encoded. The first byte of an answer
passes while the instance works on the second. If the client goes, its handler
is cancelled and the connection to the instance is closed.

A request is sent a second time only if no byte of an answer came and the
instance can't have acted on it: the connection was refused, or it was a kept
one that turned out to be closed.
"""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Protocol

import aiohttp
import msgspec
from aiohttp import HttpVersion11, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from ollama_proxy import headers
from ollama_proxy.answers import in_band_error
from ollama_proxy.backend import Upstream
from ollama_proxy.bodies import reset
from ollama_proxy.errors import InstanceLostError, UpstreamError
from ollama_proxy.exchange import raw_target
from ollama_proxy.link import connection_options, credentials, is_foreign
from ollama_proxy.routing import Family
from ollama_proxy.tasks import TaskOwner

UNTYPED = web.ResponseKey("untyped", bool)
"""Key on a response whose instance named no content type."""

_CONNECT_TIMEOUT_S = 10.0
_INVITATION_S = 5.0
_LEFT_OPEN_S = 1.0
_ERROR_BODY = 64 * 1024
_FIRST_ERROR = 400
_TURNED_AWAY = frozenset({401, 403, 404, 429, 503})
_SMALL_WRITE = 16 * 1024
_AUTO_HEADERS = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
_STREAM_TYPES = frozenset({"application/x-ndjson", "text/event-stream"})


def _tracing() -> aiohttp.TraceConfig:
    """Return a trace that tells a kept connection from a new one."""
    trace = aiohttp.TraceConfig()

    async def note(
        _session: aiohttp.ClientSession,
        context: SimpleNamespace,
        _params: aiohttp.TraceConnectionReuseconnParams,
    ) -> None:
        if isinstance(context.trace_request_ctx, SimpleNamespace):
            context.trace_request_ctx.reused = True

    trace.on_connection_reuseconn.append(note)
    return trace


def open_session(*, keep_connections: bool) -> aiohttp.ClientSession:
    """Return a client that adds nothing, follows nothing and waits for ever."""
    connector = aiohttp.TCPConnector(
        limit=0, force_close=not keep_connections, use_dns_cache=True
    )
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_AUTO_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
        trace_configs=[_tracing()],
        max_line_size=1024 * 1024,
        max_field_size=1024 * 1024,
        read_bufsize=256 * 1024,
    )


class Body(Protocol):
    """A request's body on its way to an instance.

    ``complete``: it is all there, so it can be sent twice. ``expects``: its client
    sends it only once it is invited.
    """

    complete: bool
    on_invited: Callable[[], None] | None

    @property
    def expects(self) -> bool:
        """Whether its client waits to be invited."""

    async def invite(self) -> None:
        """Have the client send it."""

    def payload(self) -> bytes | io.BytesIO | AsyncIterator[bytes] | None:
        """Return what is to be sent, framed as it came."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as an instance gets it; ``target`` is the raw path and query."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: Body


def outgoing(request: web.BaseRequest, body: Body) -> Outgoing:
    """Return a client's request as an instance gets it."""
    target, to_send = raw_target(request), headers.for_upstream(request.headers)
    return Outgoing(request.method, target, to_send, body)


class Relay:
    """The connections to instances.

    Bodies that can't be sent twice travel on connections of their own, since a
    kept one may turn out to be closed when it is too late.
    """

    def __init__(self) -> None:
        self._kept = open_session(keep_connections=True)
        self._fresh = open_session(keep_connections=False)
        self._left: list[aiohttp.ClientSession] = []
        self._closing = TaskOwner()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._closing.aclose()
        for session in (*self._left, self._kept, self._fresh):
            await session.close()

    def forget(self) -> None:
        """Keep no connection: what they led to is gone, or asleep and silent.

        A machine that was suspended wakes up with its connections dead, and nobody
        on the way says so. What is under way now may end.
        """
        self._left.append(self._kept)
        self._kept = open_session(keep_connections=True)
        self._closing.spawn(self._close_left(), name="close kept connections")

    async def _close_left(self) -> None:
        await asyncio.sleep(_LEFT_OPEN_S)
        await self._left[0].close()
        self._left.pop(0)

    @contextlib.asynccontextmanager
    async def answer(
        self, request: Outgoing, upstream: Upstream
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield its answer, of which the headers have come.

        The connection is closed if the body is not read to its end. Raises
        `UpstreamError` if there is no answer.
        """
        response = await self._send(request, upstream)
        try:
            yield response
        except BaseException:
            response.close()
            raise
        response.release()

    async def _send(
        self, request: Outgoing, upstream: Upstream
    ) -> aiohttp.ClientResponse:
        for is_retry in (False, True):
            seen = SimpleNamespace(reused=False)
            try:
                if request.body.expects:
                    response = await self._send_if_wanted(request, upstream, seen)
                else:
                    response = await self._send_once(request, upstream, seen)
                return _own(response, upstream)
            except (aiohttp.ClientError, OSError) as error:
                arrived = not _never_arrived(error, seen)
                if is_retry or arrived or not request.body.complete:
                    message = f"the instance did not answer: {error}"
                    raise UpstreamError(message, arrived=arrived) from error
        raise AssertionError("the loop returns or raises")

    async def _send_if_wanted(
        self, request: Outgoing, upstream: Upstream, seen: SimpleNamespace
    ) -> aiohttp.ClientResponse:
        """Let the instance invite the body, or answer without having seen it.

        A server that does neither in time knows no ``Expect``: it is asked again,
        on a new connection, without.
        """
        body = request.body
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_INVITATION_S) as limit:
                body.on_invited = partial(limit.reschedule, None)
                return await self._send_once(request, upstream, seen, expect100=True)
        body.on_invited = None
        await body.invite()
        return await self._send_once(request, upstream, seen)

    async def _send_once(
        self,
        request: Outgoing,
        upstream: Upstream,
        seen: SimpleNamespace,
        *,
        expect100: bool = False,
    ) -> aiohttp.ClientResponse:
        session = self._kept if request.body.complete else self._fresh
        to_send = request.headers
        if upstream.link is not None:
            to_send = to_send.copy()
            to_send.update(credentials(upstream.link))
        return await session.request(
            request.method,
            URL(upstream.url + request.target, encoded=True),
            headers=to_send,
            data=request.body.payload(),
            allow_redirects=False,
            trace_request_ctx=seen,
            expect100=expect100,
            **connection_options(upstream.link),
        )


def _own(
    response: aiohttp.ClientResponse, upstream: Upstream
) -> aiohttp.ClientResponse:
    """Return an instance's answer; raises `UpstreamError` for its platform's own."""
    if not is_foreign(upstream.link, response.headers):
        return response
    response.close()
    said = f"{response.status} {response.reason or ''}".strip()
    message = f"the gateway before the instance answered {said!r}"
    raise UpstreamError(message, arrived=response.status not in _TURNED_AWAY)


def _never_arrived(error: Exception, seen: SimpleNamespace) -> bool:
    if isinstance(error, aiohttp.ClientConnectorError):
        return isinstance(error.os_error, ConnectionRefusedError)
    broken = aiohttp.ServerDisconnectedError | ConnectionError
    return bool(seen.reused) and isinstance(error, broken)


class Head(Protocol):
    """Status line and headers of an answer."""

    @property
    def status(self) -> int:
        """The status."""

    @property
    def reason(self) -> str | None:
        """The words after the status."""

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers as they came."""


async def chunks_of(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield an answer's body as it comes, a chunk as a chunk.

    Raises `InstanceLostError` if the instance breaks off; the connection is of no use
    then.
    """
    content = answer.content
    while True:
        try:
            data, is_chunk = await content.readchunk()
        except (aiohttp.ClientError, OSError) as error:
            answer.close()
            raise InstanceLostError(str(error) or type(error).__name__) from error
        if data:
            yield data
        elif not is_chunk or content.at_eof():  # else: the end of a chunk passed on
            return


class Handover:
    """One answer on its way to the client; ``response`` is set once it began.

    ``begun`` is a response under way, if heartbeats have opened one already;
    ``added`` are headers of our own, ``request_id`` names the request in errors.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        family: Family,
        *,
        begun: web.StreamResponse | None,
        stall_s: float,
        added: Mapping[str, str],
        request_id: str,
    ) -> None:
        self.response = begun
        self._request_id = request_id
        self._added = added
        self._request = request
        self._family = family
        self._stall_s = stall_s
        self._last = b"\n"

    async def run(
        self, head: Head, chunks: AsyncIterator[bytes], touch: Callable[[], None]
    ) -> web.StreamResponse:
        """Pass the answer on as it comes, a chunk as a chunk.

        If the instance breaks off, the client is told in the words of the
        stream, or its connection is reset: a clean early end would look like
        success. A client that takes nothing for ``stall_s`` is reset too.
        """
        if self.response is not None and head.status >= _FIRST_ERROR:
            return await self._tell(self.response, await _error_of(head, chunks))
        response = self.response or await self._begin(head)
        try:
            async for data in chunks:
                touch()
                if self._takes_at_once(data):
                    await response.write(data)
                else:
                    await self._write_bounded(response, data)
                self._last = data
        except InstanceLostError as error:
            return await self.break_off(error)
        await response.write_eof()
        return response

    def _takes_at_once(self, data: bytes) -> bool:
        """Tell whether a write can't wait: nothing is queued, and this is little.

        It spares each token the price of a timer.
        """
        transport = self._request.transport
        if transport is None or len(data) > _SMALL_WRITE:
            return False
        return transport.get_write_buffer_size() == 0

    async def _write_bounded(self, response: web.StreamResponse, data: bytes) -> None:
        """Write to a client that may be slow; reset one that takes nothing."""
        try:
            async with asyncio.timeout(self._stall_s):
                await response.write(data)
        except TimeoutError as error:
            reset(self._request)
            raise ConnectionResetError("the client takes nothing") from error

    async def _begin(self, head: Head) -> web.StreamResponse:
        response = web.StreamResponse(
            status=head.status,
            reason=head.reason,
            headers=headers.for_client(head.headers),
        )
        close_if_unframed(self._request, response)
        if not self._request.content.is_eof():
            response.force_close()  # what is left of an unwanted upload is not read
        kept = head.headers.get("Connection", "").lower() == "keep-alive"
        if kept and self._request.keep_alive and response.keep_alive is not False:
            response.headers["Connection"] = "keep-alive"  # some routes say so
        response.headers.update(self._added)
        response[UNTYPED] = "Content-Type" not in head.headers
        await response.prepare(self._request)
        self.response = response
        return response

    async def break_off(self, error: Exception) -> web.StreamResponse:
        """End a stream whose instance was lost, so that nobody takes it for whole.

        Raises `ConnectionResetError` after a reset, where nothing can be told.
        """
        message = "the instance was lost in the middle of the answer"
        response = self.response
        can_tell = response is not None and response.content_type in _STREAM_TYPES
        if response is None or not can_tell or "Content-Length" in response.headers:
            reset(self._request)
            raise ConnectionResetError(f"{message}: {error}") from error
        fresh_line = b"" if self._last.endswith(b"\n") else b"\n"
        is_sse = response.content_type == "text/event-stream"
        fresh_event = b"\n" if is_sse else b""
        return await self._tell(response, message, fresh_line + fresh_event)

    async def _tell(
        self, response: web.StreamResponse, message: str, before: bytes = b""
    ) -> web.StreamResponse:
        """End a response that has begun with an error in its stream."""
        told = in_band_error(self._family, message, request_id=self._request_id)
        async with asyncio.timeout(self._stall_s):
            await response.write(before + told)
            await response.write_eof()
        return response


async def _error_of(head: Head, chunks: AsyncIterator[bytes]) -> str:
    """Return the error text of an instance's answer."""
    raw = b""
    with contextlib.suppress(InstanceLostError):
        async for data in chunks:
            raw += data
            if len(raw) > _ERROR_BODY:
                break
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return f"the instance answered with status {head.status}"
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else f"status {head.status}"


def close_if_unframed(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """End a body without a length by a close, for clients that know no chunks."""
    if request.version < HttpVersion11 and "Content-Length" not in response.headers:
        response.force_close()


async def strip_own_headers(
    _request: web.BaseRequest, response: web.StreamResponse
) -> None:
    """Remove what aiohttp adds: Ollama names no server and invents no type."""
    response.headers.pop("Server", None)
    if response.get(UNTYPED):
        response.headers.popall("Content-Type", None)
