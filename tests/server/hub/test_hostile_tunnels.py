"""An agent that breaks the rules of a tunnel loses that tunnel, and nothing else."""

import asyncio
import base64
import contextlib
import os
import resource
import struct
from collections.abc import AsyncIterator

import pytest

from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from tests.fakes.tunnelled_node import TunnelHub, tunnel_hub, tunnelled_node
from tests.server.hub.test_tunnel_route import Node, ask, begin, cancelled

BINARY, CONTINUATION, TEXT, CLOSE, PING = 0x82, 0x80, 0x81, 0x88, 0x89
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def frame(first: int, data: bytes, *, said: int | None = None) -> bytes:
    """Return a frame as a client sends it; ``said``: the length in its header."""
    size = len(data) if said is None else said
    if size < 126:
        header = struct.pack(">BB", first, 0x80 | size)
    elif size < 1 << 16:
        header = struct.pack(">BBH", first, 0x80 | 126, size)
    else:
        header = struct.pack(">BBQ", first, 0x80 | 127, size)
    return header + bytes(4) + data  # a mask of zeros changes nothing


class RawAgent:
    """Has opened a tunnel as gpu-1, and sends exact bytes."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader, self.writer = reader, writer

    async def is_closed(self) -> bool:
        """Tell that the hub closes the connection; what it sent before is dropped."""
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                await self.reader.read()
        return True

    async def request(self) -> bytes:
        """Return the first frame of a request."""
        async with asyncio.timeout(20):
            first, size = await self.reader.readexactly(2)
            assert first == BINARY
            if size == 126:
                (size,) = struct.unpack(">H", await self.reader.readexactly(2))
            return await self.reader.readexactly(size)


@contextlib.asynccontextmanager
async def raw_agent(hub: TunnelHub) -> AsyncIterator[RawAgent]:
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    key = base64.b64encode(os.urandom(16))
    writer.write(
        b"GET /nodes/tunnel HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Authorization: Bearer key-of-gpu-1\r\n"
        b"Sec-WebSocket-Key: %b\r\n\r\n" % key
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    try:
        yield RawAgent(reader, writer)
    finally:
        writer.close()


@pytest.fixture
async def hub() -> AsyncIterator[TunnelHub]:
    async with tunnel_hub(wait_s=0.2) as hub:
        yield hub


IDLE_FAULTS = {
    "an answer without a request": frame(BINARY, OK),
    "text": frame(TEXT, b"hello"),
    "text that is no UTF-8": frame(TEXT, b"\xff\xfe"),
    "a frame that says it has 2 EiB": frame(BINARY, b"x", said=1 << 61),
    "a frame of a length above 63 bits": frame(BINARY, b"x", said=(1 << 63) + 5),
    "an unknown opcode": frame(0x8F, b""),
    "reserved bits": frame(0xF2, b"x"),
    "a continuation of nothing": frame(CONTINUATION, b"x"),
    "a long ping": frame(PING, bytes(126)),
    "a close with a code that is none": frame(CLOSE, struct.pack(">H", 999)),
    "a close of one byte": frame(CLOSE, b"x"),
    "a frame without a mask": b"\x82\x05hello",
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "noise": bytes(range(255, 0, -1)),
}


@pytest.mark.parametrize("sent", IDLE_FAULTS.values(), ids=IDLE_FAULTS.keys())
async def test_an_idle_tunnel_that_breaks_the_rules_is_closed(
    hub: TunnelHub, sent: bytes
) -> None:
    async with raw_agent(hub) as agent:
        await hub.until(idle=1)
        agent.writer.write(sent)

        assert await agent.is_closed()
        await hub.until(idle=0)


ANSWER_FAULTS = {
    "no HTTP": frame(BINARY, b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "half an answer": frame(BINARY, OK[:-1]) + frame(CLOSE, b"\x03\xe8"),
    "half a frame": frame(BINARY, OK, said=len(OK) + 10),
    "a frame of 1 MiB": frame(BINARY, bytes(1 << 20)),
    "text": frame(TEXT, OK),
    "a head without an end": frame(BINARY, b"HTTP/1.1 200 OK\r\nA: " + b"a" * 60_000)
    * 20,
    "nothing but a close": frame(CLOSE, b"\x03\xe8"),
}


@pytest.fixture
async def beside(hub: TunnelHub) -> AsyncIterator[None]:
    """A node of good manners with the same name, and three idle tunnels."""
    async with tunnelled_node(hub, Node().app()):
        await hub.until(idle=3)
        yield


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("sent", ANSWER_FAULTS.values(), ids=ANSWER_FAULTS.keys())
async def test_an_answer_that_is_none_fails_its_request_alone(
    hub: TunnelHub, sent: bytes
) -> None:
    async with await begin(hub, "/tokens") as other, raw_agent(hub) as agent:
        await hub.until(idle=4, of=5)  # the newest is taken
        task = asyncio.ensure_future(ask(hub, "/echo"))
        assert (await agent.request()).startswith(b"POST /echo HTTP/1.1\r\n")
        agent.writer.write(sent)
        agent.writer.write_eof()
        with pytest.raises((UpstreamError, InstanceLostError)):
            async with asyncio.timeout(20):
                await task

        assert await agent.is_closed()
        assert await ask(hub, "/echo") == b"hi"
        assert await anext(other.chunks())


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("gap_s", [0.0, 0.05])
async def test_a_second_answer_reaches_no_request(hub: TunnelHub, gap_s: float) -> None:
    async with raw_agent(hub) as agent:
        await hub.until(idle=4)
        task = asyncio.ensure_future(ask(hub, "/echo"))
        await agent.request()
        agent.writer.write(frame(BINARY, OK))
        await asyncio.sleep(gap_s)
        with contextlib.suppress(ConnectionError):
            agent.writer.write(frame(BINARY, OK))
            await agent.writer.drain()

        assert await task == b"ok"
        assert await agent.is_closed()
        assert await ask(hub, "/echo") == b"hi"


@pytest.mark.usefixtures("beside")
async def test_an_agent_that_never_answers_holds_its_own_request_alone(
    hub: TunnelHub,
) -> None:
    async with raw_agent(hub) as agent:
        await hub.until(idle=4)
        task = asyncio.ensure_future(ask(hub, "/echo"))
        await agent.request()

        assert await ask(hub, "/echo") == b"hi"
        await cancelled(task)
        assert await agent.is_closed()


@pytest.mark.usefixtures("beside")
async def test_an_agent_that_vanishes_fails_its_request(hub: TunnelHub) -> None:
    async with raw_agent(hub) as agent:
        await hub.until(idle=4)
        task = asyncio.ensure_future(ask(hub, "/echo"))
        await agent.request()
        agent.writer.transport.abort()

        with pytest.raises(UpstreamError) as caught:
            await task
        assert caught.value.arrived


async def test_an_agent_that_falls_silent_loses_its_tunnel_and_its_request() -> None:
    async with tunnel_hub(look_s=0.1) as hub, raw_agent(hub) as agent:
        await hub.until(idle=1)
        task = asyncio.ensure_future(ask(hub, "/echo"))
        await agent.request()

        with pytest.raises(UpstreamError, match=r"sent nothing for 0\.3 s"):
            await task
        await hub.until(idle=0)


async def test_fragments_without_an_end_keep_less_than_a_mebibyte(
    hub: TunnelHub,
) -> None:
    async with raw_agent(hub) as agent:
        before = peak_kib()
        with contextlib.suppress(ConnectionError):
            agent.writer.write(frame(0x02, bytes(60_000)))
            for _ in range(1000):
                agent.writer.write(frame(0x00, bytes(60_000)))
                await agent.writer.drain()

        assert await agent.is_closed()
        assert peak_kib() - before < 32 * 1024


async def test_a_flood_of_pings_from_an_agent_that_does_not_read_is_bounded(
    hub: TunnelHub,
) -> None:
    async with raw_agent(hub) as agent:
        await hub.until(idle=1)
        before = peak_kib()
        ping = frame(PING, bytes(125)) * 1000
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(2):
                for _ in range(400):
                    agent.writer.write(ping)
                    await agent.writer.drain()

        assert peak_kib() - before < 32 * 1024


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
