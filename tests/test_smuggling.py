"""Requests made to be read in two ways: refused, or passed in one way only."""

from asyncio import StreamReader, StreamWriter
from pathlib import Path

import pytest

from ollama_proxy.backends.static import StaticBackend
from tests.fakes.raw_upstream import raw_upstream, reply
from tests.proxy import running_proxy

POST = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
TRICKS = {
    "length and chunks": POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "chunks and length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}" + HIDDEN,
    "a list of lengths": POST + b"Content-Length: 2, 40\r\n\r\n{}" + HIDDEN,
    "a signed length": POST + b"Content-Length: +2\r\n\r\n{}" + HIDDEN,
    "a length in hex": POST + b"Content-Length: 0x2\r\n\r\n{}" + HIDDEN,
    "a negative length": POST + b"Content-Length: -2\r\n\r\n{}" + HIDDEN,
    "chunked in another word": POST
    + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "chunked twice": POST
    + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "a space before the colon": POST + b"Content-Length : 2\r\n\r\n{}" + HIDDEN,
    "a folded header": POST + b"X-A: 1\r\n Content-Length: 2\r\n\r\n" + HIDDEN,
    "a bad chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n" + HIDDEN,
    "a signed chunk size": POST
    + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n"
    + HIDDEN,
    "a null in a header": POST + b"X-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
    "a bare CR in a header": POST + b"X-A: a\rb\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("trick", TRICKS)
async def test_a_trick_is_refused_and_never_reaches_the_instance(
    tmp_path: Path, trick: str
) -> None:
    async def script(_reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(reply(b"ok"))

    async with (
        raw_upstream(script) as upstream,
        running_proxy(
            tmp_path,
            backend=StaticBackend(upstream.url),
            OLLAMA_PROXY_STALL_TIMEOUT="0.5s",
        ) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        try:
            raw = await proxy.raw(TRICKS[trick])
        except ConnectionResetError:
            raw = b""

    assert not upstream.heads, upstream.heads
    assert b" 200 " not in raw
    status = raw.partition(b"\r\n")[0] + b" "
    assert raw == b"" or b" 400 " in status or b" 501 " in status


@pytest.mark.parametrize(
    "name", ["a\r\nX-Injected: 1", "a\nb", "../../etc/passwd", "a\x00b"]
)
async def test_a_model_name_never_becomes_a_header(tmp_path: Path, name: str) -> None:
    async with running_proxy(tmp_path) as proxy:
        for awake in (False, True):
            if awake:
                await proxy.wake()
            async with proxy.session.post(
                f"{proxy.url}/api/show", json={"model": name}
            ) as answer:
                assert "X-Injected" not in answer.headers
                assert answer.status in {400, 404}


async def test_pipelined_requests_are_answered_in_their_order(tmp_path: Path) -> None:
    one = b"GET /v1/models/one HTTP/1.1\r\nHost: localhost\r\n\r\n"
    two = b"GET /v1/models/two HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with running_proxy(tmp_path) as proxy:
        raw = await proxy.raw(one + two)

    assert raw.count(b"HTTP/1.1 404 Not Found") == 2
    assert raw.index(b"'one:latest'") < raw.index(b"'two:latest'")
