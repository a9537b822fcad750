"""The end of the server: in good order, in bounded time."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from ollama_proxy.simulator.server import Manners
from tests.fakes.instance import InProcessBackend
from tests.proxy import (
    RunningProxy,
    generate,
    needs_fast_path,
    relaying_proxy,
    running_proxy,
)

ASK = b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Stream:
    """An answer that begins at once and ends when it may."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: Any) -> None:
        await reader.readexactly(2)
        writer.write(HEAD + b"1\r\na\r\n")
        await self.may_end.wait()
        writer.write(b"1\r\nb\r\n0\r\n\r\n")


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def begin(proxy: RunningProxy, *, behind: bool) -> Ends:
    """Have a stream under way, read by either server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    if behind:
        writer.write(ASK[:5])
        await proxy.until(lambda: proxy.behind > 0)
    writer.write(ASK[5:] if behind else ASK)
    await reader.readuntil(b"1\r\na\r\n")
    return reader, writer


@contextlib.asynccontextmanager
async def streaming(
    folder: Path, drain_timeout_s: float
) -> AsyncIterator[tuple[RunningProxy, list[asyncio.StreamReader], Stream]]:
    """Run a proxy with a stream through each server."""
    stream = Stream()
    running = relaying_proxy(folder, stream, drain_timeout_s=drain_timeout_s)
    async with running as (_, proxy):
        clients = [await begin(proxy, behind=behind) for behind in (False, True)]
        yield proxy, [reader for reader, _ in clients], stream
        stream.may_end.set()
        for _, writer in clients:
            writer.close()


async def test_streams_of_both_servers_may_end_before_it_ends(tmp_path: Path) -> None:
    async with streaming(tmp_path, 60.0) as (proxy, readers, stream):
        idle, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        ending = asyncio.ensure_future(proxy.runner.cleanup())

        assert await idle.read() == b""
        stream.may_end.set()
        rests = [await reader.read() for reader in readers]
        async with asyncio.timeout(20.0):
            await ending
        writer.close()

    assert rests == [b"1\r\nb\r\n0\r\n\r\n"] * 2


async def test_streams_that_do_not_end_are_cut(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with streaming(tmp_path, 0.5) as (proxy, readers, _):
        begun_at = loop.time()
        await proxy.runner.cleanup()
        took_s = loop.time() - begun_at
        rests = [await reader.read() for reader in readers]

    assert 0.4 < took_s < 5.0
    assert [rest.endswith(b"0\r\n\r\n") for rest in rests] == [False, False]


async def test_a_second_signal_cuts_at_once(tmp_path: Path) -> None:
    async with streaming(tmp_path, 60.0) as (proxy, readers, _):
        ending = asyncio.ensure_future(proxy.runner.cleanup())
        await asyncio.sleep(0.1)
        assert not ending.done()

        proxy.runner.cut()
        async with asyncio.timeout(5.0):
            await ending
            rests = [await reader.read() for reader in readers]

    assert rests == [b"", b""]


@needs_fast_path
async def test_a_connection_that_is_idle_for_an_hour_is_closed(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"running")
        proxy.runner.close_idle(3600.0)
        assert not reader.at_eof()

        proxy.runner.close_idle(0.0)
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("turns", range(5))
def test_a_connection_that_comes_while_it_ends_does_not_hold_it_up(
    tmp_path: Path, turns: int
) -> None:
    async def end_meanwhile() -> None:
        async with running_proxy(tmp_path, drain_timeout_s=60.0) as proxy:
            with socket.socket() as client:
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", proxy.port))
                for _ in range(turns):
                    await asyncio.sleep(0)
                async with asyncio.timeout(5.0):
                    await proxy.runner.cleanup()

    uvloop.run(end_meanwhile())  # asyncio forgets the socket of such a connection


@pytest.mark.parametrize("headers", [{}, {"Prefer": "wait=1"}], ids=["fast", "aiohttp"])
async def test_without_any_time_to_drain_a_stream_is_ended_at_once(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    backend = InProcessBackend(Manners(rate=2.0))
    async with (
        asyncio.timeout(5.0),
        running_proxy(tmp_path, backend=backend, drain_timeout_s=0.0) as proxy,
    ):
        await proxy.wake()
        long = generate(prompt="x " * 400, options={"num_predict": 1000})
        stream = await proxy.session.post(
            f"{proxy.url}/api/generate", json=long, headers=headers
        )
        await stream.content.readany()


async def test_without_the_fast_path_aiohttp_serves_all(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_FAST_PATH="false") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"running")

        assert proxy.behind == 1
        writer.close()


async def test_without_the_fast_path_a_silent_connection_is_closed_after_an_hour(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_FAST_PATH="false") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await proxy.until(lambda: proxy.behind == 1)
        proxy.runner.close_idle(3600.0)
        assert not reader.at_eof()

        proxy.runner.close_idle(0.0)
        assert await reader.read() == b""
        writer.close()
