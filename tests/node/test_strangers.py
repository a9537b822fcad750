"""The door refuses a stranger after its head, whatever it sends."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial

import pytest

from ollama_proxy.node.door import Door, Strangers


@contextlib.asynccontextmanager
async def closed_door(strangers: Strangers) -> AsyncIterator[int]:
    """Listen where nobody is admitted; yield the port."""
    loop = asyncio.get_running_loop()
    door = partial(Door, lambda _peer: False, asyncio.Protocol, strangers)
    server = await loop.create_server(door, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /execute HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /execute HTTP/1.1\r\nHost: a\r\n\r\n" + b"x" * (1 << 20),
        b"x" * (1 << 16),
        b"\r\n\r\n",
    ],
    ids=["small", "long body", "no head", "nothing"],
)
async def test_a_stranger_reads_the_sentence(sent: bytes) -> None:
    async with closed_door(strangers := Strangers()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(20):
            while strangers.count:
                await asyncio.sleep(0.01)

    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert "127.0.0.1 is none" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


async def test_strangers_beyond_the_limit_are_dropped_and_leave_room_later() -> None:
    async with closed_door(Strangers(most=1)) as port:
        _, held = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        held.close()
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 403 ")
        writer.close()
