"""A client of instances, what instances say, and the ends of a connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from multidict import CIMultiDict

from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.http.chunks import framed
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.serving.shared_pulls import BufferedBody
from ollama_proxy.upstream.client import Answer, UpstreamClient
from ollama_proxy.upstream.loop_mark import LoopMark
from ollama_proxy.upstream.request import PreparedRequest
from tests.fakes.raw_upstream import RawUpstream, Script, reply


class WireSink:
    """Keeps what a client's connection would be sent."""

    is_chunked = True

    def __init__(self, *, full: bool = False) -> None:
        self.wire = b""
        self.whole_chunks = 0
        self.waits = 0
        self._full = full

    def take(self, pieces: list[bytes]) -> bool:
        self.wire += b"".join(framed(piece) for piece in pieces)
        return self._full

    def write_chunk(self, chunk: bytes) -> bool:
        self.whole_chunks += 1
        self.wire += chunk
        return self._full

    async def room(self) -> None:
        self.waits += 1
        await asyncio.sleep(0)


class StillTransport(asyncio.Transport):
    """A transport that goes nowhere; it remembers whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True
        self.closed = False

    def write(self, data: object) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def to_send(body: bytes = b"{}") -> PreparedRequest:
    return PreparedRequest("POST", "/api/x", CIMultiDict(), BufferedBody(body))


async def whole(answer: Answer) -> bytes:
    async with answer:
        return b"".join([chunk async for chunk in answer.chunks()])


async def asked(one: UpstreamClient, there: RawUpstream, body: bytes = b"{}") -> bytes:
    return await whole(await one.ask(to_send(body), Upstream(there.url)))


@contextlib.asynccontextmanager
async def relay(timing: Timing = STANDARD) -> AsyncIterator[UpstreamClient]:
    one = UpstreamClient(LoopMark("owner"), timing)
    try:
        yield one
    finally:
        await one.aclose()


def answers(raw: bytes, *, then: Callable[[asyncio.StreamWriter], None]) -> Script:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(2)
        writer.write(raw)
        then(writer)

    return script


def nothing(_writer: asyncio.StreamWriter) -> None: ...


ASK = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
OK = answers(reply(b"ok"), then=nothing)


class UninvitedBody(BufferedBody):
    """A body that its client sends only when it is invited."""

    expects = True

    def __init__(self) -> None:
        super().__init__(b"")
        self.complete = False

    def payload(self) -> Any:
        return self._parts()

    async def _parts(self) -> AsyncIterator[bytes]:
        yield b"never sent"


class UnendingBody(UninvitedBody):
    """A body whose client is slow to be stopped."""

    expects = False

    async def _parts(self) -> AsyncIterator[bytes]:
        yield b"some"
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)
