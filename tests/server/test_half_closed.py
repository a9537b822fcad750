"""Clients that send no more: what needs no waiting is sent, the rest is ended."""

import asyncio
from pathlib import Path

import pytest

from ollama_proxy.server.half_closed import MOMENT_S, READ_S, patience_s
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, relaying_proxy, running_proxy

SLOW_S = 0.3
ORIGIN = b"Origin: http://localhost\r\n"
BODY = b'{"model":"tiny","prompt":"hi"}'


def test_a_read_may_take_longer_than_a_refusal_and_a_stream_no_longer() -> None:
    assert patience_s(is_read=True, has_begun=True) == READ_S
    assert patience_s(is_read=False, has_begun=False) == MOMENT_S
    assert patience_s(is_read=False, has_begun=True) == 0.0


def request(path: bytes, behind: bytes) -> bytes:
    body = BODY if path == b"/api/generate" else b""
    method = b"POST" if body else b"GET"
    head = b"%b %b HTTP/1.1\r\nHost: localhost\r\n%b" % (method, path, behind)
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def ask_and_close_half(proxy: RunningProxy, raw: bytes) -> bytes:
    """Send a request and the end of it at once; return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(raw)
        writer.write_eof()
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("behind", [b"", ORIGIN], ids=["fast", "behind"])
@pytest.mark.parametrize(
    ("path", "status"),
    [(b"/api/version", b"200"), (b"/api/generate", b"503"), (b"/api/nope", b"404")],
)
async def test_an_answer_that_needs_no_waiting_is_sent(
    tmp_path: Path, path: bytes, status: bytes, behind: bytes
) -> None:
    backend = InProcessBackend(boot_s=1000.0)
    async with running_proxy(tmp_path, backend=backend) as proxy:
        raw = await ask_and_close_half(proxy, request(path, behind))
        backend.boot_s = 0.0

    assert raw.split()[1] == status


@pytest.mark.parametrize("behind", [b"", ORIGIN], ids=["fast", "behind"])
async def test_a_read_that_an_instance_answers_is_sent_though_it_takes_a_while(
    tmp_path: Path, behind: bytes
) -> None:
    async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(SLOW_S)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with relaying_proxy(tmp_path, slow) as (_, proxy):
        raw = await ask_and_close_half(proxy, request(b"/api/ps", behind))

    assert raw.endswith(b"{}")


@pytest.mark.parametrize("behind", [b"", ORIGIN], ids=["fast", "behind"])
async def test_what_is_generated_for_a_client_that_sends_no_more_is_ended(
    tmp_path: Path, behind: bytes
) -> None:
    ended = asyncio.Event()

    async def endless(
        reader: asyncio.StreamReader, _writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        await reader.read()
        ended.set()

    async with relaying_proxy(tmp_path, endless) as (_, proxy):
        raw = await ask_and_close_half(proxy, request(b"/api/generate", behind))
        async with asyncio.timeout(5):
            await ended.wait()
        await proxy.until(lambda: proxy.parts.pool.in_flight == 0)

    assert raw == b""


async def test_a_client_that_left_holds_its_connection_no_longer(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        raw = await ask_and_close_half(proxy, b"nonsense\r\n\r\n")
        # aiohttp would linger for 2 s; so this bound is no mere patience.
        await proxy.until(lambda: proxy.behind == 0, within_s=1.0)

    assert raw.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("behind", [b"", ORIGIN], ids=["fast", "behind"])
async def test_half_a_request_is_not_waited_for(tmp_path: Path, behind: bytes) -> None:
    half = request(b"/api/generate", behind).replace(b"generate", b"show")[:-1]
    async with running_proxy(tmp_path) as proxy:
        async with asyncio.timeout(5):
            raw = await ask_and_close_half(proxy, half)

    assert raw == b""
