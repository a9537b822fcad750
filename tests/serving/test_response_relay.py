"""Slow clients: pushed back to the instance, waited for while they take anything."""

import asyncio
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, CIMultiDictProxy

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.core.ollama.activity import NO_USE, UseWatch, watch
from ollama_proxy.serving.client_writer import ClientWriter
from ollama_proxy.upstream.client import _CheckedSink
from tests.fakes.raw_upstream import Script, raw_upstream
from tests.proxy import RunningProxy, running_proxy
from tests.virtual_time import in_virtual_time

PIECE = bytes(range(256)) * 1024
BODY = b'{"model":"tiny","prompt":"hi"}'
REQUEST = (
    b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


class Torrent:
    """An answer that comes as fast as it is taken; ``sent`` is how much was."""

    def __init__(self, pieces: int, *, chunked: bool) -> None:
        self.sent = 0
        self._pieces = pieces
        self._chunked = chunked

    @property
    def script(self) -> Script:
        return self._run

    async def _run(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        framing = b"Transfer-Encoding: chunked"
        if not self._chunked:
            framing = b"Content-Length: %d" % (self._pieces * len(PIECE))
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        for _ in range(self._pieces):
            framed = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if self._chunked else PIECE
            writer.write(framed)
            await writer.drain()
            self.sent += len(PIECE)
        writer.write(b"0\r\n\r\n" if self._chunked else b"")


async def slow_client(proxy: RunningProxy) -> socket.socket:
    """Ask with a socket that has little room of its own."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", proxy.port))
    await loop.sock_sendall(client, REQUEST)
    return client


@pytest.mark.parametrize("chunked", [True, False])
async def test_an_instance_is_read_no_faster_than_its_client_reads(
    tmp_path: Path, *, chunked: bool
) -> None:
    torrent = Torrent(200, chunked=chunked)
    async with (
        raw_upstream(torrent.script) as upstream,
        running_proxy(tmp_path, backend=StaticBackend(upstream.url)) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        with await slow_client(proxy) as client:
            before = -1
            while torrent.sent != before:  # until nothing moves any more
                before = torrent.sent
                await asyncio.sleep(0.2)

            assert torrent.sent < 20_000_000  # of 52 million: what sockets hold
            loop, digest, size = asyncio.get_running_loop(), hashlib.sha256(), 0
            while data := await loop.sock_recv(client, 1 << 20):
                size += len(data)
                digest.update(data)

    assert size >= 200 * len(PIECE)
    if not chunked:
        head = size - 200 * len(PIECE)
        assert 0 < head < 500


class Draining(asyncio.Transport):
    """A client's connection whose buffer holds ``left`` bytes, by the seconds gone."""

    def __init__(self, left: Callable[[float], int]) -> None:
        super().__init__()
        self._left = left
        self._begun_at = asyncio.get_running_loop().time()
        self.aborted = False
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += data

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, 10

    def get_write_buffer_size(self) -> int:
        return self._left(asyncio.get_running_loop().time() - self._begun_at)

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class DrainedAtLast:
    """A writer whose buffer is drained when its transport has nothing left."""

    def __init__(self, transport: Draining) -> None:
        self._transport = transport

    async def drain(self) -> None:
        while self._transport.get_write_buffer_size():
            await asyncio.sleep(0.1)


def sink_of(transport: Draining, use: UseWatch = NO_USE) -> ClientWriter:
    request = make_mocked_request(
        "GET", "/", transport=transport, writer=DrainedAtLast(transport)
    )
    response = web.StreamResponse(headers={"Transfer-Encoding": "chunked"})
    return ClientWriter(request, response, lambda: None, use, stall_s=1.0)


@in_virtual_time
async def test_a_client_that_takes_a_little_each_while_is_waited_for() -> None:
    transport = Draining(lambda gone_s: max(0, 30 - 10 * int(gone_s / 0.9)))

    await sink_of(transport).room()

    assert not transport.aborted


@in_virtual_time
async def test_a_client_that_takes_nothing_for_a_while_is_reset() -> None:
    transport = Draining(lambda _gone_s: 30)

    with pytest.raises(ConnectionResetError, match="takes nothing"):
        await sink_of(transport).room()

    assert transport.aborted


async def test_an_empty_piece_does_not_end_the_body() -> None:
    transport = Draining(lambda _gone_s: 0)
    sink = sink_of(transport)

    sink.take([b""])
    sink.take([b"one", b"", b"two"])

    assert transport.written == b"3\r\none\r\n3\r\ntwo\r\n"


class Unclaimed:
    """A claim that ignores its calls, and the head of an answer."""

    status = 200
    headers = CIMultiDictProxy(CIMultiDict[str]())

    def mark_used(self) -> None:
        pass

    def mark_moving(self) -> None:
        pass


class Unchecked:
    """A check that never looks."""

    def add(self, data: bytes) -> None:
        pass

    def add_chunk(self, chunk: bytes) -> None:
        pass

    def add_chunks(self, chunks: list[bytes]) -> None:
        pass

    def is_whole(self) -> bool:
        return True


async def test_chunks_pass_unread_once_the_first_word_has_come() -> None:
    transport = Draining(lambda _gone_s: 0)
    sink = sink_of(transport, watch("/api/chat", Unclaimed(), Unclaimed()))
    checked = _CheckedSink(sink, Unchecked())
    passes = [(sink.is_chunked, checked.is_chunked)]
    for piece in (b"\n", b'{"model":', b'"tiny"}\n'):
        checked.take([piece])
        passes.append((sink.is_chunked, checked.is_chunked))

    assert passes == [(False, False)] * 3 + [(True, True)]
    assert transport.written.startswith(b"1\r\n\n\r\n9\r\n")
