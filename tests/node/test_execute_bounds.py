"""How long a job may take to its first byte, and how much of jobs is held."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpServer

from ollama_proxy.node.execute import Executor
from ollama_proxy.node.execute_body import BodyReader
from ollama_proxy.node.listed_models import LoadedModel
from ollama_proxy.node.local_ollama import LocalOllama, OllamaState
from ollama_proxy.node.workload import MOST_REQUESTS, Workload
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.endpoint import Upstream
from ollama_proxy.upstream.loop_mark import LoopMark
from tests.node.agents import post

JOB = b'{"model": "tiny", "prompt": "hi"}'


class SlowOllama:
    """Answers after ``slow_s``."""

    def __init__(self, slow_s: float) -> None:
        self.slow_s = slow_s

    async def generate(self, _request: web.Request) -> web.Response:
        await asyncio.sleep(self.slow_s)
        return web.json_response({"done": True})


@contextlib.asynccontextmanager
async def executing(
    aiohttp_server: AiohttpServer,
    *,
    slow_s: float = 0.0,
    loaded: tuple[str, ...] = (),
    bodies: BodyReader | None = None,
) -> AsyncIterator[tuple[str, Workload]]:
    """Serve ``/execute`` with 0.1 s to the first byte; yield its URL."""
    behind = web.Application()
    behind.router.add_post("/api/generate", SlowOllama(slow_s).generate)
    server = await aiohttp_server(behind, shutdown_timeout=0.1)
    upstream = Upstream(str(server.make_url("")).rstrip("/"))
    client = UpstreamClient(LoopMark("gpu-1"))
    ollama = LocalOllama(client, upstream)
    ollama.state = OllamaState(loaded=tuple(LoadedModel(name) for name in loaded))
    workload = Workload()
    executor = Executor(
        client, ollama, workload, upstream, first_byte_s=0.1, bodies=bodies
    )
    app = web.Application()
    app.router.add_post("/execute", executor.execute)
    before = await aiohttp_server(app, shutdown_timeout=0.1)
    try:
        yield str(before.make_url("/execute")), workload
    finally:
        await client.aclose()


async def until_held(bodies: BodyReader, length: int) -> None:
    async with asyncio.timeout(20):
        while bodies._held != length:
            await asyncio.sleep(0.01)


async def test_a_loaded_model_has_its_time_to_the_first_byte(
    aiohttp_server: AiohttpServer,
) -> None:
    async with executing(aiohttp_server, slow_s=5, loaded=("tiny:latest",)) as (url, _):
        status, body = await post(url, JOB)

    assert status == 504
    assert "gave no byte within 0.1 s" in json.loads(body)["error"]


async def test_an_answer_that_is_no_stream_has_more_time(
    aiohttp_server: AiohttpServer,
) -> None:
    whole = json.dumps({**json.loads(JOB), "stream": False}).encode()
    async with executing(aiohttp_server, slow_s=5, loaded=("tiny:latest",)) as (url, _):
        status, body = await post(url, whole)

    assert status == 504
    assert "gave no byte within 0.5 s" in json.loads(body)["error"]


async def test_a_model_that_has_to_be_loaded_has_more(
    aiohttp_server: AiohttpServer,
) -> None:
    async with executing(aiohttp_server, slow_s=0.3, loaded=("other",)) as (url, _):
        assert (await post(url, JOB))[0] == 200


@pytest.mark.parametrize("body", [JOB, b"no job"])
async def test_bodies_are_held_no_longer_than_their_jobs(
    aiohttp_server: AiohttpServer, body: bytes
) -> None:
    bodies = BodyReader(largest=100, most_held=len(JOB))
    async with executing(aiohttp_server, bodies=bodies) as (url, workload):
        statuses = {(await post(url, body))[0] for _ in range(4)}

    assert statuses == {200 if body is JOB else 400}
    assert workload.in_flight == 0


async def test_jobs_beyond_what_is_held_are_refused_and_those_given_up_leave_room(
    aiohttp_server: AiohttpServer,
) -> None:
    bodies = BodyReader(largest=100, most_held=len(JOB) + 5)
    async with executing(aiohttp_server, bodies=bodies) as (url, _):
        port = int(url.rpartition(":")[2].partition("/")[0])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /execute HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n")
        writer.write(b"x" * 10)
        await until_held(bodies, 10)
        assert (await post(url, JOB))[0] == 503
        writer.close()
        await until_held(bodies, 0)
        assert (await post(url, JOB))[0] == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"is_ending": True}, "this agent is ending"),
        ({"is_drained": True}, "the hub drains this node"),
        ({"in_flight": MOST_REQUESTS}, "this agent has 512 requests"),
    ],
)
async def test_a_node_that_takes_no_work_says_why(
    aiohttp_server: AiohttpServer, change: dict[str, int], words: str
) -> None:
    async with executing(aiohttp_server) as (url, workload):
        for name, value in change.items():
            setattr(workload, name, value)
        status, body = await post(url, JOB)

    assert status == 503
    assert json.loads(body)["error"].startswith(words)
