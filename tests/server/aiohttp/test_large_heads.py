"""A connection is kept, unless its last request is too large to be held."""

import asyncio
from pathlib import Path

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.core.http.request_head import MAX_TARGET
from ollama_proxy.server.aiohttp.large_heads import KEPT_HEAD
from tests.proxy import RunningProxy, running_proxy
from tests.wire import Answer, read_answer, send


async def ask(proxy: RunningProxy, name: bytes, size: int) -> Answer:
    field = b"%b: %b\r\n" % (name, b"a" * size)
    raw = b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\nPrefer: x\r\n%b\r\n" % field
    return await send(proxy.port, raw, method="GET")


@pytest.mark.parametrize(("size", "closed"), [(100, False), (KEPT_HEAD + 1, True)])
async def test_a_connection_ends_with_the_answer_to_a_large_request(
    tmp_path: Path, size: int, *, closed: bool
) -> None:
    backend = StaticBackend("http://127.0.0.1:1")
    async with running_proxy(tmp_path, backend=backend) as proxy:
        answer = await ask(proxy, b"X", size)

    assert answer.status == b"HTTP/1.1 200 OK"
    assert answer.closed is closed
    assert answer.header("Connection") == ("close" if closed else None)


@pytest.mark.parametrize("field", [b"Accept: x", b"Prefer: x"])
@pytest.mark.parametrize("target", [b"/api/tags?%b", b"/%b", b"//%b", b"http://x/%b"])
async def test_a_path_and_query_have_a_length_that_is_taken(
    tmp_path: Path, field: bytes, target: bytes
) -> None:
    backend = StaticBackend("http://127.0.0.1:1")
    async with running_proxy(tmp_path, backend=backend) as proxy:
        statuses = []
        for size in (MAX_TARGET - 20, MAX_TARGET + 1, 900_000):
            asked = b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n"
            raw = asked % (target % (b"a" * size), field)
            answer = await send(proxy.port, raw, method="GET")
            statuses.append(answer.status.split()[1])

    assert statuses[0] in {b"200", b"404", b"307"}
    assert statuses[1:] == [b"414", b"414"]
    assert answer.body == b'{"error":"the path and query have over 16384 bytes"}'
    assert answer.header("Server") is None


async def test_heads_have_a_length_that_is_taken(tmp_path: Path) -> None:
    backend = StaticBackend("http://127.0.0.1:1")
    async with running_proxy(tmp_path, backend=backend) as proxy:
        largest = await ask(proxy, b"X", 1_000_000)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        writer.write(b"".join(b"X%d: %b\r\n" % (n, b"a" * 1000) for n in range(1100)))
        too_large = await read_answer(reader, "GET")
        writer.close()

    assert largest.status == b"HTTP/1.1 200 OK"
    assert too_large.status.startswith(b"HTTP/1.1 431 ")
