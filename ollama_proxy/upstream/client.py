"""Send one request to one instance, and receive the head of its response.

A request is sent a second time only if no byte of a response was received and the
instance can't have acted on it: the connection was refused, or it was a reused one that
the peer had already closed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import TracebackType

from multidict import CIMultiDictProxy

from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.ollama.answer_end import EndCheck, check_of
from ollama_proxy.upstream.connection import Connection
from ollama_proxy.upstream.connection_pool import (
    ConnectionKey,
    ConnectionPool,
    Dial,
    dial_nothing,
)
from ollama_proxy.upstream.endpoint import Upstream, credentials, is_gateway_response
from ollama_proxy.upstream.loop_mark import LoopMark
from ollama_proxy.upstream.request import UpstreamRequest
from ollama_proxy.upstream.response_parser import ResponseError, ResponseHead
from ollama_proxy.upstream.sink import Sink

_SOME = 16
_SMALL = 320
_TURNED_AWAY = frozenset({401, 403, 404, 429, 503})


def _ignore() -> None:
    """Do nothing: the caller does not ask whether the request was sent."""


class Answer:
    """Gives access to a response whose head has arrived. Use it with ``async with``.

    The connection is reused if the body was read to its end, and closed if not. With a
    ``check``, a body that is incomplete by its protocol counts as broken off, even if
    it ends cleanly.
    """

    def __init__(
        self,
        head: ResponseHead,
        address: ConnectionKey,
        connection: Connection,
        connector: ConnectionPool,
        check: EndCheck | None,
    ) -> None:
        self.status: int = head.status
        self.reason: str | None = head.reason
        self.headers: CIMultiDictProxy[str] = head.headers
        self._address = address
        self._connection = connection
        self._connector = connector
        self._check = check

    async def pour(self, sink: Sink) -> None:
        """Hand the body to a sink as it comes; raises `InstanceLostError`."""
        if self._check is None:
            await self._connection.pour(sink)
        else:
            checked = _CheckedSink(sink, self._check)
            await self._connection.pour(checked)
            checked.look()
            _end(self._check)

    async def begun(self) -> None:
        """Wait for the first byte of the body; raises `InstanceLostError`."""
        await self._connection.begun()

    def whole(self, most: int) -> bytes | None:
        """Return the body if all of it is here and it is at most so many bytes."""
        return self._connection.whole(most)

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body, a chunk as a chunk; raises `InstanceLostError`."""
        chunks = self._connection.chunks()
        return chunks if self._check is None else _checked(chunks, self._check)

    async def __aenter__(self) -> "Answer":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            await self._connection.drop()
        elif await self._connection.end():
            self._connector.keep(self._address, self._connection)


class _CheckedSink:
    """Passes everything for a sink through a check as well.

    Small chunks are checked in groups of up to sixteen, which costs less.
    """

    def __init__(self, sink: Sink, check: EndCheck) -> None:
        self._sink = sink
        self.room = sink.room
        self._take = sink.take
        self._write_chunk = sink.write_chunk
        self._check = check
        self._passed: list[bytes] = []

    @property
    def is_chunked(self) -> bool:
        """Tell whether the sink takes whole chunks, which may change."""
        return self._sink.is_chunked

    def take(self, pieces: list[bytes]) -> bool:
        """Forward pieces of the body; return True if the sink is full."""
        self.look()
        for piece in pieces:
            self._check.add(piece)
        return self._take(pieces)

    def write_chunk(self, chunk: bytes) -> bool:
        """Take one whole chunk; True if the sink is full."""
        passed = self._passed
        passed.append(chunk)
        # Checking 16 small chunks at once costs a third of a microsecond per token. A
        # large chunk is checked alone, so the joined bytes stay below 5 KiB.
        if len(passed) == _SOME or len(chunk) > _SMALL:
            self.look()
        return self._write_chunk(chunk)

    def look(self) -> None:
        """Pass unchecked chunks to the check."""
        if self._passed:
            self._check.add_chunks(self._passed)
            self._passed.clear()


async def _checked(
    chunks: AsyncIterator[bytes], check: EndCheck
) -> AsyncIterator[bytes]:
    """Have a check look at a body, and at its end."""
    async for data in chunks:
        check.add(data)
        yield data
    _end(check)


def _end(check: EndCheck) -> None:
    """Handle a clean end; raises `InstanceLostError` if it is too early."""
    if not check.is_whole():
        raise InstanceLostError("the answer ended cleanly, but is not whole")


class UpstreamClient:
    """Sends requests to instances.

    A body that can't be sent twice gets a new connection, since a reused one may turn
    out to be closed after a part was sent. ``dial``: takes tunnels of nodes into use.
    """

    def __init__(
        self,
        mark: LoopMark,
        timing: Timing = STANDARD,
        *,
        dial: Dial = dial_nothing,
    ) -> None:
        self._mark_line = mark.line
        self._timing = timing
        self._connector = ConnectionPool(stale_s=timing.stale_s, dial=dial)
        self.forget = self._connector.forget
        self.aclose = self._connector.aclose

    async def ask(
        self,
        request: UpstreamRequest,
        upstream: Upstream,
        on_sent: Callable[[], None] = _ignore,
    ) -> Answer:
        """Send a request; raises `UpstreamError` if there is no answer.

        ``on_sent``: called before the first byte leaves. What ends before was not sent.
        """
        fresh = not request.body.complete
        try:
            if request.body.expects:
                answer = await self._ask_if_wanted(request, upstream, on_sent)
            else:
                answer = await self._ask_once(request, upstream, on_sent, fresh=fresh)
        except UpstreamError as error:
            if error.arrived or fresh or error.took_long:
                raise
            answer = await self._ask_once(request, upstream, on_sent, fresh=True)
        if is_gateway_response(upstream.link, answer.headers):
            raise await _foreign(answer)
        return answer

    async def _ask_if_wanted(
        self,
        request: UpstreamRequest,
        upstream: Upstream,
        on_sent: Callable[[], None],
    ) -> Answer:
        """Let the instance invite the body, or respond without having seen it.

        A server that does neither within ``invitation_s`` does not know ``Expect``: the
        request is sent again without it, on a new connection.
        """
        body = request.body
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timing.invitation_s) as limit:
                body.on_invited = partial(limit.reschedule, None)
                return await self._ask_once(
                    request, upstream, on_sent, fresh=True, waits=True
                )
        body.on_invited = None
        await body.invite()
        return await self._ask_once(request, upstream, on_sent, fresh=True)

    async def _ask_once(
        self,
        request: UpstreamRequest,
        upstream: Upstream,
        on_sent: Callable[[], None],
        *,
        fresh: bool,
        waits: bool = False,
    ) -> Answer:
        """Send a request once; ``waits``: its body waits for ``100 Continue``."""
        payload = request.body.payload()
        address = self._connector.key_of(upstream)
        added = credentials(upstream.link)
        head = request.head(payload, upstream.url, added=added, expect100=waits)
        head = b"%b%b\r\n" % (head[:-2], self._mark_line)  # before the empty line
        try:
            connection = await self._connector.connect(address, fresh=fresh)
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            raise _unanswered(error, arrived=False, took_long=not refused) from error
        chunked = request.in_chunks(payload)
        on_sent()
        try:
            answered = await connection.ask(
                request.method, head, payload, chunked=chunked, waits=waits
            )
        except (ResponseError, OSError) as error:
            arrived = isinstance(error, TimeoutError) or not connection.was_stale
            await connection.drop()
            raise _unanswered(error, arrived=arrived) from error
        except BaseException:
            await connection.drop()
            raise
        check = None
        if upstream.has_gateway:
            check = check_of(request.method, request.target, answered)
        return Answer(answered, address, connection, self._connector, check)


def _unanswered(
    error: Exception, *, arrived: bool, took_long: bool = False
) -> UpstreamError:
    message = f"the instance did not answer: {error}"
    return UpstreamError(message, arrived=arrived, took_long=took_long)


async def _foreign(answer: Answer) -> UpstreamError:
    """Return what an answer of the instance's platform means; it is not read."""
    async with answer:
        said = f"{answer.status} {answer.reason}".strip()
    message = f"the gateway before the instance answered {said!r}"
    return UpstreamError(message, arrived=answer.status not in _TURNED_AWAY)
