"""HTTP/1.1 as bytes: send a request, take the answer apart without mending it."""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer off the wire. ``chunks`` is None if it was not chunked."""

    status: bytes
    headers: tuple[tuple[str, str], ...]
    body: bytes
    chunks: tuple[bytes, ...] | None
    closed: bool

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)


async def send(
    port: int, request: bytes, *, method: str, timeout_s: float = 10.0
) -> Answer:
    """Send one request on a connection of its own and read one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        async with asyncio.timeout(timeout_s):
            writer.write(request)
            return await read_answer(reader, method)
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader, method: str) -> Answer:
    """Read one answer, and whether the connection ends after it."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head[:-4].split(b"\r\n")
    pairs = [line.decode("latin-1").partition(": ") for line in lines]
    headers = tuple((name, value) for name, _, value in pairs)
    named = {name.lower(): value for name, value in headers}
    bodiless = method == "HEAD" or status.split()[1] in {b"204", b"304"}
    chunks: list[bytes] | None = None
    body = b""
    if not bodiless and named.get("transfer-encoding") == "chunked":
        chunks = await _read_chunks(reader)
        body = b"".join(chunks)
    elif not bodiless and "content-length" in named:
        body = await reader.readexactly(int(named["content-length"]))
    elif not bodiless:
        body = await reader.read()
    says_so = named.get("connection", "").lower() == "close"
    closed = await _ends(reader, within_s=2.0 if says_so else 0.01)
    return Answer(status, headers, body, tuple(chunks) if chunks else None, closed)


async def _read_chunks(reader: asyncio.StreamReader) -> list[bytes]:
    chunks = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunks.append(await reader.readexactly(size))
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"
    return chunks


async def _ends(reader: asyncio.StreamReader, within_s: float) -> bool:
    """Tell whether the connection ends; a busy machine may take a while."""
    try:
        async with asyncio.timeout(within_s):
            return await reader.read(1) == b""
    except TimeoutError:
        return False
