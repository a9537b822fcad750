"""The simulator behaves as Ollama, and misbehaves on demand."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from pytest_aiohttp.plugin import AiohttpServer

from ollama_proxy.simulator.server import SIMULATOR, Manners, build_simulator


@pytest.fixture
async def base(aiohttp_server: AiohttpServer) -> AsyncIterator[str]:
    app = build_simulator(Manners(load_s=0.05), models=["tiny"])
    server = await aiohttp_server(app, auto_decompress=False, shutdown_timeout=0.1)
    yield str(server.make_url("")).rstrip("/")
    assert app[SIMULATOR].counters.in_flight == 0


async def ask(url: str, **body: Any) -> tuple[int, dict[str, str], str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body) as reply,
    ):
        headers = {str(name): value for name, value in reply.headers.items()}
        return reply.status, headers, await reply.text()


async def test_each_token_is_a_line_and_a_chunk(base: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{base}/api/generate", json={"model": "tiny", "prompt": "hi"}
        ) as reply,
    ):
        chunks = [data async for data, end in reply.content.iter_chunks() if end]

    assert len(chunks) > 20
    assert all(chunk.endswith(b"\n") for chunk in chunks if chunk)


async def test_the_types_are_those_of_ollama(base: str) -> None:
    native = (
        await ask(f"{base}/api/generate", model="tiny", prompt="a", stream=False)
    )[1]
    stream = (await ask(f"{base}/api/chat", model="tiny", messages=[{"role": "user"}]))[
        1
    ]
    openai = (await ask(f"{base}/v1/completions", model="tiny", prompt="a"))[1]

    assert native["Content-Type"] == "application/json; charset=utf-8"
    assert stream["Content-Type"] == "application/x-ndjson"
    assert openai["Content-Type"] == "application/json"
    for headers in (native, stream, openai):
        assert "Server" not in headers


async def test_a_client_that_leaves_aborts_the_load_it_began(
    aiohttp_server: AiohttpServer,
) -> None:
    app = build_simulator(Manners(load_s=60.0), models=["tiny"])
    server = await aiohttp_server(app, shutdown_timeout=0.1)
    url = str(server.make_url("/api/generate"))
    asking = asyncio.ensure_future(ask(url, model="tiny", prompt="hi"))
    async with asyncio.timeout(30):
        while not app[SIMULATOR].counters.in_flight:
            await asyncio.sleep(0.01)
        asking.cancel()
        while not app[SIMULATOR].store.aborted_loads:
            await asyncio.sleep(0.01)

    assert app[SIMULATOR].store.loads == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (rb'{"model":"tiny","prompt":"\ud83d","stream":false}', 200),
        (b'{"model":"tiny","prompt":"x","stream":false}\x00', 200),
        (b'{"MODEL":"tiny","Prompt":"x","STREAM":false}{"model":"other"}', 200),
        (b'{"model":"tiny","prompt":', 400),
        (b" ", 400),
        (b"[" * 20_000, 400),
    ],
)
async def test_json_is_read_as_ollama_reads_it(
    base: str, body: bytes, status: int
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{base}/api/generate", data=body) as reply,
    ):
        assert reply.status == status


async def test_ps_shows_what_is_loaded_until_it_is_unloaded(base: str) -> None:
    async def running() -> list[str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{base}/api/ps") as reply,
        ):
            return [model["name"] for model in (await reply.json())["models"]]

    assert await running() == []
    await ask(f"{base}/api/generate", model="tiny")
    assert await running() == ["tiny:latest"]
    said = json.loads(
        (await ask(f"{base}/api/generate", model="tiny", keep_alive=0))[2]
    )

    assert said["done_reason"] == "unload"
    assert await running() == []


async def test_a_blob_is_stored_under_its_true_digest(base: str) -> None:
    digest = hashlib.sha256(b"abc").hexdigest()
    async with aiohttp.ClientSession() as session:
        for wanted, status in (("0" * 64, 400), (digest, 200)):
            url = f"{base}/api/blobs/sha256:{wanted}"
            async with session.post(url, data=b"abc") as reply:
                assert reply.status == status
        async with session.head(f"{base}/api/blobs/sha256-{digest}") as reply:
            assert reply.status == 200


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset-after=2", aiohttp.ClientPayloadError),
        ("reset-after=0", aiohttp.ServerDisconnectedError),
    ],
)
async def test_a_reset_on_demand(base: str, fault: str, error: type[Exception]) -> None:
    headers = {"X-Simulator-Fault": fault}
    async with aiohttp.ClientSession(headers=headers) as session:
        with pytest.raises((error, aiohttp.ClientOSError)):
            async with session.post(
                f"{base}/api/generate", json={"model": "tiny", "prompt": "hi"}
            ) as reply:
                await reply.read()


async def test_an_unknown_fault_is_refused(base: str) -> None:
    async with (
        aiohttp.ClientSession(headers={"X-Simulator-Fault": "explode=1"}) as session,
        session.get(f"{base}/api/tags") as reply,
    ):
        assert reply.status == 400
        assert "no fault 'explode'" in await reply.text()


async def test_a_status_on_demand(base: str) -> None:
    async with (
        aiohttp.ClientSession(headers={"X-Simulator-Fault": "status=503"}) as session,
        session.get(f"{base}/api/tags") as reply,
    ):
        assert (reply.status, await reply.json()) == (
            503,
            {"error": "simulated failure"},
        )


async def test_its_models_are_no_embedding_models_to_ollamas_command(
    base: str,
) -> None:
    """``ollama run`` asks those for a vector, and shows it instead of words."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{base}/api/show", json={"model": "tiny"}) as answer,
    ):
        shown = await answer.json()

    assert shown["capabilities"] == ["completion", "tools", "thinking"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/chat", '{"model":"tiny","messages":["hi"]}', 400),
        ("POST", "/api/chat", '{"model":"tiny","options":{"a":1e400}}', 400),
        ("POST", "/v1/chat/completions", '{"model":"tiny","messages":[5]}', 400),
        ("POST", "/v1/chat/completions", '{"model":"tiny","messages":[]}', 400),
        ("POST", "/v1/messages", '{"model":"tiny","messages":[{}]}', 400),
        ("POST", "/v1/responses", '{"model":"tiny","input":[5]}', 400),
        ("POST", "/api/copy", '{"source":"tiny","destination":1e400}', 400),
        ("POST", "/api/copy", '{"source":"tiny","destination":"b","x":1e400}', 200),
        ("POST", "/api/generate", '{"model":"tiny","prompt":"a","x":1e400}', 200),
    ],
)
async def test_it_refuses_what_ollama_refuses_and_nothing_else(
    base: str, method: str, path: str, body: str, status: int
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, base + path, data=body) as answer,
    ):
        await answer.read()

    assert answer.status == status
