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
from collections.abc import AsyncIterator, Callable, Mapping
from types import SimpleNamespace

import aiohttp
from aiohttp import HttpVersion11, web
from yarl import URL

from ollama_proxy import headers
from ollama_proxy.answers import in_band_error
from ollama_proxy.backend import Upstream
from ollama_proxy.bodies import RequestBody, reset
from ollama_proxy.errors import UpstreamError
from ollama_proxy.exchange import raw_target
from ollama_proxy.routing import Family

UNTYPED = web.ResponseKey("untyped", bool)
"""Key on a response whose instance named no content type."""

_CONNECT_TIMEOUT_S = 10.0
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


class Relay:
    """The connections to instances.

    Bodies that can't be sent twice travel on connections of their own, since a
    kept one may turn out to be closed when it is too late.
    """

    def __init__(self) -> None:
        self._kept = open_session(keep_connections=True)
        self._fresh = open_session(keep_connections=False)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._kept.close()
        await self._fresh.close()

    @contextlib.asynccontextmanager
    async def answer(
        self, request: web.BaseRequest, upstream: Upstream, body: RequestBody
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield its answer, of which the headers have come.

        The connection is closed if the body is not read to its end. Raises
        `UpstreamError` if there is no answer.
        """
        response = await self._send(request, upstream, body)
        try:
            yield response
        except BaseException:
            response.close()
            raise
        response.release()

    async def _send(
        self, request: web.BaseRequest, upstream: Upstream, body: RequestBody
    ) -> aiohttp.ClientResponse:
        for is_retry in (False, True):
            seen = SimpleNamespace(reused=False)
            try:
                return await self._send_once(request, upstream, body, seen)
            except (aiohttp.ClientError, OSError) as error:
                arrived = not _never_arrived(error, seen)
                if is_retry or arrived or not body.complete:
                    message = f"the instance did not answer: {error}"
                    raise UpstreamError(message, arrived=arrived) from error
        raise AssertionError("the loop returns or raises")

    async def _send_once(
        self,
        request: web.BaseRequest,
        upstream: Upstream,
        body: RequestBody,
        seen: SimpleNamespace,
    ) -> aiohttp.ClientResponse:
        session = self._kept if body.complete else self._fresh
        return await session.request(
            request.method,
            URL(upstream.url + raw_target(request), encoded=True),
            headers=headers.for_upstream(request.headers),
            data=body.payload(),
            allow_redirects=False,
            trace_request_ctx=seen,
        )


def _never_arrived(error: Exception, seen: SimpleNamespace) -> bool:
    if isinstance(error, aiohttp.ClientConnectorError):
        return isinstance(error.os_error, ConnectionRefusedError)
    broken = aiohttp.ServerDisconnectedError | ConnectionError
    return bool(seen.reused) and isinstance(error, broken)


class Handover:
    """One answer on its way to the client; ``response`` is set once it began.

    ``begun`` is a response under way, if heartbeats have opened one already;
    ``added`` are headers of our own.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        family: Family,
        *,
        begun: web.StreamResponse | None,
        stall_s: float,
        added: Mapping[str, str],
    ) -> None:
        self.response = begun
        self._added = added
        self._request = request
        self._family = family
        self._stall_s = stall_s
        self._last = b"\n"

    async def run(
        self, answer: aiohttp.ClientResponse, touch: Callable[[], None]
    ) -> web.StreamResponse:
        """Pass the answer on as it comes, a chunk as a chunk.

        If the instance breaks off, the client is told in the words of the
        stream, or its connection is reset: a clean early end would look like
        success. A client that takes nothing for ``stall_s`` is reset too.
        """
        response = self.response or await self._begin(answer)
        while True:
            try:
                data, is_chunk = await answer.content.readchunk()
            except (aiohttp.ClientError, OSError) as error:
                answer.close()
                return await self.break_off(error)
            touch()
            if not data:
                if is_chunk and not answer.content.at_eof():
                    continue  # the end of a chunk that was passed on before
                break
            try:
                async with asyncio.timeout(self._stall_s):
                    await response.write(data)
            except TimeoutError as error:
                reset(self._request)
                raise ConnectionResetError("the client takes nothing") from error
            self._last = data
        await response.write_eof()
        return response

    async def _begin(self, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(
            status=answer.status,
            reason=answer.reason,
            headers=headers.for_client(answer.headers),
        )
        close_if_unframed(self._request, response)
        kept = answer.headers.get("Connection", "").lower() == "keep-alive"
        if kept and self._request.keep_alive and response.keep_alive is not False:
            response.headers["Connection"] = "keep-alive"  # some routes say so
        response.headers.update(self._added)
        response[UNTYPED] = "Content-Type" not in answer.headers
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
        told = in_band_error(self._family, message)
        async with asyncio.timeout(self._stall_s):
            await response.write(fresh_line + fresh_event + told)
            await response.write_eof()
        return response


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
