"""Connections to an instance end with it."""

import asyncio
from pathlib import Path

from tests.fakes.raw_upstream import reply
from tests.proxy import relaying_proxy


async def test_no_connection_to_an_instance_that_is_being_stopped_is_kept(
    tmp_path: Path,
) -> None:
    """A suspended machine leaves its connections dead, without an RST or FIN."""
    closed = asyncio.Event()

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(reply(b"{}"))
        if not await reader.read(1):
            closed.set()

    async with relaying_proxy(tmp_path, script) as (_upstream, proxy):
        async with proxy.session.get(f"{proxy.url}/api/ps") as answer:
            assert await answer.read() == b"{}"
        was_kept = not closed.is_set()
        proxy.parts.pool.stop()
        async with asyncio.timeout(10.0):
            await closed.wait()

    assert was_kept
