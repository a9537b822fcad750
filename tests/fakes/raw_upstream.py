"""An upstream that answers with exact bytes, and keeps what it was sent."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class RawUpstream:
    """Listens on a port; ``script`` handles each request after the version probes."""

    script: Script
    url: str = ""
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def handle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /api/version "):
                    writer.write(reply(b'{"version":"0.33.0"}'))
                elif head.startswith(b"GET /api/tags "):
                    writer.write(reply(b'{"models":[]}'))
                else:
                    self.heads.append(head)
                    await self.script(reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def reply(body: bytes, *headers: bytes) -> bytes:
    """Return a 200 with a length."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def patient_upstream() -> AsyncIterator[RawUpstream]:
    """Run an upstream that reads each request to its end, and answers ``{}``."""

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        length = re.search(rb"Content-Length: (\d+)", upstream.heads.pop())
        await reader.readexactly(int(length[1]) if length is not None else 0)
        writer.write(reply(b"{}"))

    async with raw_upstream(script) as upstream:
        yield upstream


@contextlib.asynccontextmanager
async def raw_upstream(script: Script) -> AsyncIterator[RawUpstream]:
    """Run an upstream that does what ``script`` says."""
    upstream = RawUpstream(script)
    server = await asyncio.start_server(upstream.handle, "127.0.0.1", 0, limit=1 << 22)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        await upstream.aclose()
        await server.wait_closed()
