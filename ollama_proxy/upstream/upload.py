"""Send the body of a request as it comes, no faster than its connection takes it."""

import asyncio
from collections.abc import AsyncIterator

from ollama_proxy.core.http.chunks import framed


class WriteGate:
    """Holds an upload back while the buffer of its transport is full."""

    def __init__(self) -> None:
        self._opened: asyncio.Future[None] | None = None

    def close(self) -> None:
        """Have an upload wait from now on."""
        self._opened = asyncio.get_running_loop().create_future()

    def open(self) -> None:
        """Have an upload go on."""
        opened, self._opened = self._opened, None
        if opened is not None and not opened.done():
            opened.set_result(None)

    async def passed(self) -> None:
        """Wait until it is open; return at once if it is."""
        if self._opened is not None:
            await self._opened


async def send_parts(
    parts: AsyncIterator[bytes],
    transport: asyncio.WriteTransport,
    gate: WriteGate,
    *,
    chunked: bool,
) -> None:
    """Write a body part by part, each as a chunk if ``chunked``.

    Stops without an error once the transport is closed. Raises what ``parts`` raises:
    then the body is not complete.
    """
    async for part in parts:
        if transport.is_closing():
            return
        if not part:
            continue
        transport.write(framed(part) if chunked else part)
        await gate.passed()
    if chunked and not transport.is_closing():
        transport.write(b"0\r\n\r\n")


async def slices(body: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield a body in slices of at most so many bytes."""
    for at in range(0, len(body), size):
        yield body[at : at + size]
