"""Clients on TLS that leave, stop reading, send too much, or come at the end."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from pathlib import Path

import pytest

from ollama_proxy.core.http.chunks import framed
from tests.certificates import PrivateCa, private_ca
from tests.fakes.raw_upstream import reply
from tests.proxy import RunningProxy, needs_fast_path, relaying_proxy, running_proxy
from tests.server.tls.test_listener import ASK, BODY, HEAD, TOKEN, VERSION

ORIGIN = b"Origin: http://localhost\r\n"
ASK_BEHIND = ASK.replace(b"Host:", ORIGIN + b"Host:")
FILES = Path("/proc/self/fd")
LAST = b"0\r\n\r\n"
ASKS = pytest.mark.parametrize("ask", [ASK, ASK_BEHIND], ids=["fast", "aiohttp"])


@pytest.fixture
def ca(tmp_path: Path) -> PrivateCa:
    return private_ca(tmp_path / "tls")


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected(proxy: RunningProxy, ca: PrivateCa) -> Ends:
    return await asyncio.open_connection("127.0.0.1", proxy.port, ssl=ca.trusting())


class Held:
    """An upstream that begins an answer, and ends it when it may."""

    def __init__(self) -> None:
        self.may_end, self.has_left = asyncio.Event(), asyncio.Event()

    async def __call__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        writer.write(HEAD + framed(TOKEN))
        leaving = asyncio.ensure_future(reader.read())
        ending = asyncio.ensure_future(self.may_end.wait())
        await asyncio.wait({leaving, ending}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done() and not self.may_end.is_set():
            self.has_left.set()
        leaving.cancel()
        ending.cancel()
        await asyncio.gather(leaving, ending, return_exceptions=True)
        writer.write(framed(TOKEN) + LAST)


@ASKS
@pytest.mark.parametrize("how", ["close_notify", "FIN", "RST"])
async def test_a_client_that_leaves_ends_its_request_quietly(
    tmp_path: Path,
    ca: PrivateCa,
    ask: bytes,
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    upstream = Held()
    async with relaying_proxy(tmp_path, upstream, tls=ca) as (_, proxy):
        reader, writer = await connected(proxy, ca)
        writer.write(ask)
        await reader.readuntil(b"hi")
        raw = writer.get_extra_info("socket")
        if how == "close_notify":
            writer.close()
        elif how == "FIN":
            with socket.socket(fileno=os.dup(raw.fileno())) as same:
                same.shutdown(socket.SHUT_WR)
        else:
            writer.transport.abort()
        async with asyncio.timeout(20.0):
            await upstream.has_left.wait()
        writer.close()
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == []


@ASKS
async def test_streams_may_end_before_the_server_does(
    tmp_path: Path, ca: PrivateCa, ask: bytes
) -> None:
    upstream = Held()
    proxied = relaying_proxy(tmp_path, upstream, tls=ca, drain_timeout_s=60.0)
    async with proxied as (_, proxy):
        reader, writer = await connected(proxy, ca)
        writer.write(ask)
        await reader.readuntil(b"hi")
        ending = asyncio.ensure_future(proxy.runner.cleanup())
        await asyncio.sleep(0.05)
        upstream.may_end.set()
        async with asyncio.timeout(30.0):
            rest = await reader.read()
            await ending
        writer.close()
    assert rest.endswith(LAST)


@ASKS
async def test_streams_that_do_not_end_are_cut_and_seen_as_broken(
    tmp_path: Path, ca: PrivateCa, ask: bytes
) -> None:
    async with relaying_proxy(tmp_path, Held(), tls=ca) as (_, proxy):
        reader, writer = await connected(proxy, ca)
        writer.write(ask)
        await reader.readuntil(b"hi")
        async with asyncio.timeout(20.0):
            await proxy.runner.cleanup()
            rest = b""
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                rest = await reader.read()
        writer.close()
    assert LAST not in rest


@needs_fast_path
async def test_what_a_client_sends_too_early_is_dropped_and_its_answer_whole(
    tmp_path: Path, ca: PrivateCa
) -> None:
    upstream = Held()
    async with relaying_proxy(tmp_path, upstream, tls=ca) as (_, proxy):
        reader, writer = await connected(proxy, ca)
        writer.write(ASK)
        await reader.readuntil(b"hi")
        writer.write(b"x" * 300_000)
        await asyncio.sleep(0.1)
        upstream.may_end.set()
        async with asyncio.timeout(30.0):
            rest = await reader.read()
        writer.close()
    assert rest.endswith(LAST)


@ASKS
async def test_a_client_that_reads_nothing_is_reset(
    tmp_path: Path, ca: PrivateCa, ask: bytes
) -> None:
    left = asyncio.Event()

    async def endless(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        writer.write(HEAD)
        try:
            while True:
                writer.write(framed(b"x" * 60_000))
                await writer.drain()
        except ConnectionError:
            left.set()
            raise

    async with relaying_proxy(tmp_path, endless, tls=ca, stall="0.5") as (_, proxy):
        loop = asyncio.get_running_loop()

        def begin() -> ssl.SSLSocket:
            raw = socket.create_connection(("127.0.0.1", proxy.port), 20)
            client = ca.trusting().wrap_socket(raw, server_hostname="localhost")
            client.sendall(ask)
            client.recv(100)
            return client

        client = await loop.run_in_executor(None, begin)
        async with asyncio.timeout(60.0):
            await left.wait()
        client.close()


async def test_the_rest_of_a_last_answer_reaches_a_slow_client(
    tmp_path: Path, ca: PrivateCa
) -> None:
    """It asked for the end of the connection, and reads it later."""
    whole = b"x" * 8_000_000

    async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(BODY))
        writer.write(reply(whole))

    async with relaying_proxy(tmp_path, large, tls=ca) as (_, proxy):
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()

        def ask() -> bytes:
            raw = socket.create_connection(("127.0.0.1", proxy.port), 20)
            with ca.trusting().wrap_socket(raw, server_hostname="localhost") as client:
                client.sendall(ASK.replace(b"Host:", b"Connection: close\r\nHost:"))
                came = client.recv(100)
                loop.call_soon_threadsafe(begun.set)
                threading_wait()
                while part := client.recv(1 << 16):
                    came += part
                return came

        def threading_wait() -> None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(3.0), loop).result()

        came = await loop.run_in_executor(None, ask)
        assert begun.is_set()
    assert came.endswith(whole)


def open_files() -> int:
    return sum(1 for _ in FILES.iterdir())


@pytest.mark.skipif(not FILES.is_dir(), reason="there is no /proc")
@pytest.mark.parametrize(
    "sent",
    [b"", b"\xff", VERSION, b"\x16\x03\x01\x00\x05hello"],
    ids=["nothing", "garbage", "HTTP", "no hello"],
)
async def test_handshakes_that_fail_leave_nothing_open(
    tmp_path: Path, ca: PrivateCa, sent: bytes
) -> None:
    async with running_proxy(tmp_path, tls=ca) as proxy:
        async with proxy.session.get(f"{proxy.url}/api/version") as answer:
            assert answer.status == 200
        before = open_files()
        for _ in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(sent)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
        await proxy.until(lambda: open_files() <= before + 2)
