"""Relay one response to the client, byte for byte.

Nothing is compressed, decompressed or re-encoded. Bytes are relayed as they arrive,
without waiting for more.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import InstanceLostError
from ollama_proxy.core.http import headers
from ollama_proxy.core.http.compression import encoding_of
from ollama_proxy.core.ollama.activity import UseWatch, error_text
from ollama_proxy.core.ollama.error_bodies import in_band_error
from ollama_proxy.core.ollama.routes import Family
from ollama_proxy.serving.answer_meter import AnswerMeter
from ollama_proxy.serving.client_writer import (
    Asked,
    ClientWriter,
    Head,
    StartedResponse,
    reset,
)
from ollama_proxy.serving.interruptions import TELL_S
from ollama_proxy.serving.metered_writer import MeteredWriter
from ollama_proxy.upstream.client import Answer

_ERROR_BODY = 64 * 1024
_FIRST_ERROR = 400
_WHOLE = 16 * 1024
_STREAM_TYPES = frozenset({"application/x-ndjson", "text/event-stream"})


ResponseT = TypeVar("ResponseT", bound=StartedResponse)

StartResponse = Callable[[Head, Mapping[str, str], bytes], Awaitable[ResponseT]]
"""Begins a response from the upstream's head, headers of our own and the body, if that
is complete. It is sent with `StartedResponse.write_eof` at the latest."""


class ResponseRelay(Generic[ResponseT]):
    """Relays one response to the client; ``response`` is set once it has begun.

    ``begun``: a response that heartbeats have begun already; otherwise ``opening``
    begins one. ``added``: headers of our own. ``request_id``: named in errors.
    ``meter``: sees the body of an answer to a request that has a key. ``is_passing``:
    an instance's answer is relayed, or was. ``was_lost``: it broke off.
    """

    def __init__(
        self,
        request: Asked,
        family: Family,
        *,
        opening: StartResponse[ResponseT],
        begun: ResponseT | None,
        stall_s: float,
        added: Mapping[str, str],
        request_id: str,
    ) -> None:
        self.response = begun
        self.meter: AnswerMeter | None = None
        self.is_passing = self.was_lost = False
        self._request_id = request_id
        self._opening = opening
        self._added = added
        self._request = request
        self._family = family
        self._stall_s = stall_s
        self._sink: ClientWriter | None = None

    @property
    def has_client(self) -> bool:
        """Tell whether the client's connection is open."""
        transport = self._request.transport
        return transport is not None and not transport.is_closing()

    async def pour(
        self, answer: Answer, touch: Callable[[], None], use: UseWatch
    ) -> ResponseT:
        """Relay a response as it arrives, chunk by chunk.

        If the instance breaks off, the client gets an error in the stream's format, or
        its connection is reset: a clean early end would look like success. A client
        that reads nothing for ``stall_s`` is reset too.
        """
        meter, self.is_passing = self.meter, True
        if self._takes_whole(answer) and (body := answer.whole(_WHOLE)) is not None:
            touch()
            if meter is not None:
                meter.take_whole(answer, body)
            use.take(body)
            use.end(is_whole=True)
            response = await self._begin(answer, body)
            await response.write_eof()
            return response
        if meter is not None:
            meter.begin(answer)
        return await self._pass(answer, answer.chunks(), answer.pour, touch, use)

    async def run(
        self,
        head: Head,
        chunks: AsyncIterator[bytes],
        touch: Callable[[], None],
        use: UseWatch,
    ) -> ResponseT:
        """Relay, in the same way, a response that another part inspects first."""
        self.is_passing = True
        if self.meter is not None:
            self.meter.begin(head)

        async def pour(sink: ClientWriter) -> None:
            async for data in chunks:
                if sink.take([data]):
                    await sink.room()

        return await self._pass(head, chunks, pour, touch, use)

    async def _pass(
        self,
        head: Head,
        chunks: AsyncIterator[bytes],
        pour: Callable[[ClientWriter], Awaitable[None]],
        touch: Callable[[], None],
        use: UseWatch,
    ) -> ResponseT:
        """Pour a body out to the client, after its head and with its end."""
        if self.response is not None:
            if encoding := encoding_of(head.headers):
                use.end(is_whole=True)
                told = f"the instance's answer is compressed ({encoding}): the stream"
                return await self._tell(self.response, f"{told} that began is not")
            if head.status >= _FIRST_ERROR:
                message = await _error_of(head, chunks, use)
                return await self._tell(self.response, message)
        response = self.response or await self._begin(head)
        self._sink = self._writer(response, touch, use)
        try:
            await pour(self._sink)
            use.end(is_whole=True)
        except InstanceLostError as error:
            return await self.abort_stream(error)
        finally:
            use.end(is_whole=False)
        await response.write_eof()
        return response

    def _writer(
        self, response: ResponseT, touch: Callable[[], None], use: UseWatch
    ) -> ClientWriter:
        """Return what writes the body, for a key such that its meter sees it."""
        if self.meter is None:
            return ClientWriter(self._request, response, touch, use, self._stall_s)
        return MeteredWriter(
            self._request, response, touch, use, self._stall_s, self.meter
        )

    def _takes_whole(self, head: Head) -> bool:
        """Tell whether head and body may leave in one write, which can't wait."""
        transport = self._request.transport
        return (
            self.response is None
            and "Content-Length" in head.headers
            and self._request.method != "HEAD"
            and transport is not None
            and transport.get_write_buffer_size() == 0
        )

    async def _begin(self, head: Head, body: bytes = b"") -> ResponseT:
        self.response = await self._opening(head, self._added, body)
        return self.response

    async def abort_stream(self, error: Exception) -> ResponseT:
        """End a stream whose instance was lost, so that it does not look complete.

        Raises `ConnectionResetError` after a reset, if the format allows no error.
        """
        self.was_lost = True
        structlog.get_logger().warning(
            log.ANSWER_LOST,
            request_id=self._request_id,
            error=str(error) or "no more bytes arrived",
        )
        message = "the instance was lost in the middle of the answer"
        return await self.end_early(message, error)

    async def interrupt(self, message: str, error: BaseException) -> ResponseT:
        """End a stream with a reason; a client that does not read it soon is reset."""
        try:
            async with asyncio.timeout(TELL_S):
                response = await self.end_early(message, error)
                await self._request.writer.drain()
        except TimeoutError:
            reset(self._request)
            raise ConnectionResetError("the client takes nothing") from error
        return response

    async def end_early(self, message: str, error: BaseException) -> ResponseT:
        """End a stream in the middle with an error that names the cause.

        Raises `ConnectionResetError` after a reset, if the format allows no error.
        """
        response = self.response
        if response is None or not _takes_words(response):
            reset(self._request)
            raise ConnectionResetError(f"{message}: {error}") from error
        # The instance may have broken off in the middle of a line. The error has to be
        # a line (NDJSON) or event (SSE) of its own, or clients could not parse it.
        last = self._sink.last if self._sink is not None else b"\n"
        fresh_line = b"" if last.endswith(b"\n") else b"\n"
        is_sse = headers.media_type(response.headers) == "text/event-stream"
        fresh_event = b"\n" if is_sse else b""
        return await self._tell(response, message, fresh_line + fresh_event)

    async def _tell(
        self, response: ResponseT, message: str, before: bytes = b""
    ) -> ResponseT:
        """End a response that has begun with an error in its stream."""
        told = in_band_error(self._family, message, request_id=self._request_id)
        async with asyncio.timeout(self._stall_s):
            await response.write(before + told)
            await response.write_eof()
        return response


def _takes_words(response: StartedResponse) -> bool:
    """Tell whether words of our own fit into a body: a stream, and in the clear."""
    fields = response.headers
    is_bound = "Content-Length" in fields or "Content-Encoding" in fields
    return headers.media_type(fields) in _STREAM_TYPES and not is_bound


async def _error_of(head: Head, chunks: AsyncIterator[bytes], use: UseWatch) -> str:
    """Return the error text of an instance's answer."""
    raw, is_whole = b"", False
    with contextlib.suppress(InstanceLostError):
        async for data in chunks:
            raw += data
            if len(raw) > _ERROR_BODY:
                break
        else:
            is_whole = True
    use.take(raw)
    use.end(is_whole=is_whole)
    return error_text(raw) or f"the instance answered with status {head.status}"
