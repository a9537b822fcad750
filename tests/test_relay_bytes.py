"""Any body, in any pieces, at any pace: bytes out are bytes in."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_proxy.backends.static import StaticBackend
from tests.fakes.raw_upstream import raw_upstream
from tests.proxy import running_proxy
from tests.wire import read_answer

PIECES = st.lists(
    st.tuples(st.binary(min_size=1, max_size=5000), st.booleans()), max_size=8
)


def chunked(pieces: list[tuple[bytes, bool]]) -> list[bytes]:
    """Return the writes that send ``pieces`` as chunks, and their end."""
    writes = [b"%x\r\n%s\r\n" % (len(data), data) for data, _ in pieces]
    return [*writes, b"0\r\n\r\n"]


async def trickle(
    writer: asyncio.StreamWriter, writes: list[bytes], pieces: list[tuple[bytes, bool]]
) -> None:
    """Write, with a pause behind the pieces that ask for one."""
    pauses = [pause for _, pause in pieces] + [False]
    for data, pause in zip(writes, pauses, strict=False):
        writer.write(data)
        await writer.drain()
        if pause:
            await asyncio.sleep(0.001)


async def relayed(
    folder: Path, up: list[tuple[bytes, bool]], down: list[tuple[bytes, bool]]
) -> tuple[bytes, bytes]:
    """Send ``up`` through a proxy to an upstream that answers with ``down``."""
    arrived = bytearray()

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            arrived.extend(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await trickle(writer, chunked(down), down)

    async with (
        raw_upstream(script) as upstream,
        running_proxy(folder, backend=StaticBackend(upstream.url)) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(
            b"POST /api/create HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        await trickle(writer, chunked(up), up)
        async with asyncio.timeout(10):
            answer = await read_answer(reader, "POST")
        writer.close()
    return bytes(arrived), answer.body


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(up=PIECES, down=PIECES)
def test_bytes_out_are_bytes_in_both_ways(
    up: list[tuple[bytes, bool]], down: list[tuple[bytes, bool]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sent, received = asyncio.run(relayed(Path(folder), up, down))

    assert sent == b"".join(data for data, _ in up)
    assert received == b"".join(data for data, _ in down)
