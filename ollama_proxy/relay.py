"""Hand one request to one instance, and its answer back, byte for byte.

Nothing is compressed, decompressed or re-encoded. The first byte of an answer
passes while the instance works on the second. If the client goes, its handler
is cancelled and the connection to the instance is closed.

A request is sent a second time only if no byte of an answer came and the
instance can't have acted on it: the connection was refused, or it was a kept
one that turned out to be closed.
"""

import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

import aiohttp
from aiohttp import HttpVersion11, web
from yarl import URL

from ollama_proxy import headers
from ollama_proxy.answers import in_band_error
from ollama_proxy.backend import Upstream
from ollama_proxy.bodies import RequestBody
from ollama_proxy.errors import UpstreamError
from ollama_proxy.routing import Family

UNTYPED = web.ResponseKey("untyped", bool)
"""Key on a response whose instance named no content type."""

_CONNECT_TIMEOUT_S = 10.0
_AUTO_HEADERS = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
_RELAYED_TYPES = {
    "application/x-ndjson": Family.NATIVE,
    "text/event-stream": Family.OPENAI,
}


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


def raw_target(request: web.BaseRequest) -> str:
    """Return path and query as the client wrote them."""
    target = request.raw_path
    if target.startswith("/"):
        return target
    return request.rel_url.raw_path_qs


def _never_arrived(error: Exception, seen: SimpleNamespace) -> bool:
    if isinstance(error, aiohttp.ClientConnectorError):
        return isinstance(error.os_error, ConnectionRefusedError)
    broken = aiohttp.ServerDisconnectedError | ConnectionError
    return bool(seen.reused) and isinstance(error, broken)


async def hand_on(
    request: web.BaseRequest,
    answer: aiohttp.ClientResponse,
    *,
    begun: web.StreamResponse | None,
    family: Family,
    touch: Callable[[], None],
) -> web.StreamResponse:
    """Pass an answer on as it comes; ``begun`` is a response under way, if any.

    If the instance breaks off, the client is told in the words of the stream,
    or its connection is reset: a clean early end would look like success.
    """
    response = begun
    if response is None:
        response = web.StreamResponse(
            status=answer.status,
            reason=answer.reason,
            headers=headers.for_client(answer.headers),
        )
        close_if_unframed(request, response)
        response[UNTYPED] = "Content-Type" not in answer.headers
        await response.prepare(request)
    last = b"\n"
    while True:
        try:
            data = await answer.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            await _break_off(request, response, answer, family, last, error)
            return response
        touch()
        if not data:
            break
        await response.write(data)
        last = data
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


def _reset(request: web.BaseRequest) -> None:
    """Reset the client's connection: a mere close would be a clean end to some."""
    transport = request.transport
    if transport is None:
        return
    bound = transport.get_extra_info("socket")
    if bound is not None:
        at_once = struct.pack("ii", 1, 0)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    transport.abort()


async def _break_off(
    request: web.BaseRequest,
    response: web.StreamResponse,
    answer: aiohttp.ClientResponse,
    family: Family,
    last: bytes,
    error: Exception,
) -> None:
    """End a stream whose instance was lost, so that nobody takes it for whole."""
    message = "the instance was lost in the middle of the answer"
    is_stream = response.content_type in _RELAYED_TYPES
    if not is_stream or "Content-Length" in response.headers:
        _reset(request)
        raise ConnectionResetError(f"{message}: {error}") from error
    answer.close()
    fresh_line = b"" if last.endswith(b"\n") else b"\n"
    fresh_event = b"\n" if response.content_type == "text/event-stream" else b""
    await response.write(fresh_line + fresh_event + in_band_error(family, message))
    await response.write_eof()
