"""The register of requests in progress: which ones it holds, and for how long."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.serving.request_context import Stage
from ollama_proxy.simulator.server import Manners
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy

WAYS = ["true", "false"]
"""Values of OLLAMA_PROXY_FAST_PATH: one for each way in."""

ENDLESS = {"model": "tiny", "prompt": "hi", "options": {"num_predict": 1_000_000}}
SLOW = Manners(rate=100.0, pull_s=60.0)


@contextlib.asynccontextmanager
async def asked(
    proxy: RunningProxy, path: str, body: object, *headers: str
) -> AsyncIterator[asyncio.StreamReader]:
    """Send a request on a connection of its own, which the client leaves at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    raw = json.dumps(body)
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers]
    head = "\r\n".join([*lines, f"Content-Length: {len(raw)}", "", ""])
    writer.write(f"{head}{raw}".encode())
    try:
        yield reader
    finally:
        writer.transport.abort()


def stages(proxy: RunningProxy) -> list[tuple[str, Stage]]:
    return [(one.route.name, one.stage) for one in proxy.parts.active]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["/api/generate", "/api/pull"])
async def test_an_answer_under_way_is_registered_until_its_client_leaves(
    tmp_path: Path, way: str, path: str
) -> None:
    backend = InProcessBackend(SLOW)
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_FAST_PATH=way
    ) as proxy:
        await proxy.wake()
        async with asked(proxy, path, ENDLESS) as reader:
            await reader.readline()
            assert stages(proxy) == [(path, Stage.SERVED)]
            (one,) = proxy.parts.active
            assert one.caller.address == "127.0.0.1"
            assert 0.0 < one.begun_at <= asyncio.get_running_loop().time()
        await proxy.until(lambda: len(proxy.parts.active) == 0)


@pytest.mark.parametrize("way", WAYS)
async def test_a_held_request_is_registered_as_waiting(
    tmp_path: Path, way: str
) -> None:
    backend = InProcessBackend(SLOW, boot_s=1000.0)
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_FAST_PATH=way
    ) as proxy:
        async with asked(proxy, "/api/generate", ENDLESS, "Prefer: wait=99") as reader:
            await proxy.until(lambda: proxy.parts.pool.waiting == 1)
            assert stages(proxy) == [("/api/generate", Stage.WAITING)]
            backend.boot_s = 0.0
            await reader.readline()
            assert stages(proxy) == [("/api/generate", Stage.SERVED)]
        await proxy.until(lambda: len(proxy.parts.active) == 0)


@pytest.mark.parametrize("way", WAYS)
async def test_an_upload_that_has_not_arrived_is_registered_as_arriving(
    tmp_path: Path, way: str
) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_FAST_PATH=way) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=9\r\n"
        writer.write(head + b"Content-Length: 9\r\n\r\n{")
        await proxy.until(lambda: stages(proxy) != [])
        assert stages(proxy) == [("/api/generate", Stage.ARRIVING)]
        writer.write(b"}       ")
        await reader.readline()
        writer.close()
        await proxy.until(lambda: stages(proxy) == [])


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_stays_registered_of_requests_that_are_over(
    tmp_path: Path, way: str
) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_FAST_PATH=way) as proxy:
        for path in ("/", "/api/tags", "/api/version", "/none", "/status"):
            async with proxy.session.get(f"{proxy.url}{path}") as reply:
                await reply.read()
        body = {"model": "tiny", "prompt": "hi", "stream": False}
        for path in ("/api/generate", "/api/show", "/api/delete"):
            for prefer in ({}, {"Prefer": "wait=60"}):
                url = f"{proxy.url}{path}"
                async with proxy.session.post(url, json=body, headers=prefer) as reply:
                    await reply.read()
        await proxy.until(lambda: len(proxy.parts.active) == 0)
