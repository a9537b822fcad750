"""``POST /execute`` relays what Ollama sends, and says in words what it does not."""

import asyncio
import contextlib
import io
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.fakes.raw_upstream import (
    RawUpstream,
    Script,
    patient_upstream,
    raw_upstream,
    reply,
)
from tests.node.agents import RunningAgent, post, running_agent
from tests.ports import held_port

JOB = b'{"model": "tiny", "prompt": "hi"}'
AWAY_HUB = "http://127.0.0.1:9"


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[RunningAgent]:
    async with (
        patient_upstream() as upstream,
        running_agent(
            tmp_path, SERVER_URL=AWAY_HUB, OLLAMA_BASE_URL=upstream.url
        ) as agent,
    ):
        yield agent


@contextlib.asynccontextmanager
async def generating(script: Script) -> AsyncIterator[RawUpstream]:
    """Run an Ollama with ``script`` for POST; what looks at it gets an empty object."""

    async def either(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if upstream.heads[-1].startswith(b"GET"):
            upstream.heads.pop()
            writer.write(reply(b"{}"))
        else:
            await script(reader, writer)

    async with raw_upstream(either) as upstream:
        yield upstream


async def read_body(reader: asyncio.StreamReader, upstream: RawUpstream) -> bytes:
    length = re.search(rb"Content-Length: (\d+)", upstream.heads[-1])
    assert length is not None
    return await reader.readexactly(int(length[1]))


@contextlib.asynccontextmanager
async def breaking_off(state: Path, sent: bytes) -> AsyncIterator[RunningAgent]:
    """Run an agent whose Ollama sends the beginning of an answer, and closes."""

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await read_body(reader, upstream)
        writer.write(b"HTTP/1.1 200 OK\r\n" + sent)
        await writer.drain()
        writer.close()

    async with (
        generating(script) as upstream,
        running_agent(
            state, SERVER_URL=AWAY_HUB, OLLAMA_BASE_URL=upstream.url
        ) as agent,
    ):
        yield agent


async def test_a_body_beyond_the_bound_is_refused_while_it_comes(
    agent: RunningAgent,
) -> None:
    status, answer = await post(f"{agent.url}/execute", io.BytesIO(b" " * (33 << 20)))

    assert status == 413
    assert json.loads(answer)["error"].startswith("the body is longer than 32 MiB")


async def test_bytes_pass_unchanged_both_ways(tmp_path: Path) -> None:
    odd = b'{ "prompt":"\\u00e9",  "model":"tiny", "format":{"type" : "object"} }'
    asked = []

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        asked.append(await read_body(reader, upstream))
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\n{ } \n\r\n4\r\n{}\r\n\r\n0\r\n\r\n"
        )

    async with (
        generating(script) as upstream,
        running_agent(
            tmp_path, SERVER_URL=AWAY_HUB, OLLAMA_BASE_URL=upstream.url
        ) as agent,
    ):
        assert await post(f"{agent.url}/execute", odd) == (200, b"{ } \n{}\r\n")
        head = upstream.heads[0]

    assert asked == [odd]
    assert head.startswith(b"POST /api/generate HTTP/1.1\r\n")


async def test_an_error_of_ollama_is_the_nodes_answer(tmp_path: Path) -> None:
    error = b'{"error":"model \'tiny\' not found"}'

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await read_body(reader, upstream)
        answer = reply(error, b"Content-Type: application/json; charset=utf-8")
        writer.write(answer.replace(b"200 OK", b"404 Not Found"))

    async with (
        generating(script) as upstream,
        running_agent(
            tmp_path, SERVER_URL=AWAY_HUB, OLLAMA_BASE_URL=upstream.url
        ) as agent,
    ):
        assert await post(f"{agent.url}/execute", JOB) == (404, error)


async def test_a_stream_that_ollama_breaks_off_ends_with_an_error_line(
    tmp_path: Path,
) -> None:
    sent = (
        b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'd\r\n{"response":\r\n'
    )
    async with breaking_off(tmp_path, sent) as agent:
        status, body = await post(f"{agent.url}/execute", JOB)

    half, line = body.splitlines()
    assert (status, half) == (200, b'{"response":')
    assert json.loads(line)["error"].startswith("the node's Ollama broke off")


async def test_an_object_that_ollama_breaks_off_is_cut(tmp_path: Path) -> None:
    head = b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    async with breaking_off(tmp_path, head + b'{"response":') as agent:
        with pytest.raises(aiohttp.ClientError):
            await post(f"{agent.url}/execute", JOB)


async def test_a_hub_that_does_not_read_holds_ollama_back(tmp_path: Path) -> None:
    """The buffers on the way are a few MiB; without back-pressure it is all of it."""
    sent = 0
    stuck = asyncio.Event()

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal sent
        await read_body(reader, upstream)
        piece = b"x" * (1 << 20)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(64):
            writer.write(b"100000\r\n" + piece + b"\r\n")
            try:
                async with asyncio.timeout(1):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                break
            sent += 1
        writer.close()

    async with (
        generating(script) as upstream,
        running_agent(
            tmp_path, SERVER_URL=AWAY_HUB, OLLAMA_BASE_URL=upstream.url
        ) as agent,
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", agent.port)
        head = b"POST /execute HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(JOB) + JOB)
        async with asyncio.timeout(20):
            await stuck.wait()
        writer.close()

    assert sent < 32


async def test_an_ollama_that_is_away_is_502_in_words(tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{held_port()}"
    async with running_agent(
        tmp_path, SERVER_URL=AWAY_HUB, OLLAMA_BASE_URL=away
    ) as agent:
        status, body = await post(f"{agent.url}/execute", JOB)

    assert status == 502
    assert json.loads(body)["error"].endswith("or set OLLAMA_BASE_URL of this node")
    assert json.loads(body)["detail"] == json.loads(body)["error"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "the body is not JSON"),
        (b"\xff{", 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "the body is not JSON"),
        (b"[1]", 400, "the body is no object"),
        (b"{}", 400, "'model' is missing"),
        (b'{"model": 7}', 400, "'model' is not a text"),
        (b'{"model": "a", "prompt": []}', 400, "'prompt' is not a text"),
        (b'{"model": "a", "options": "hot"}', 400, "'options' is not an object"),
        (b'{"model": "a", "stream": "yes"}', 400, "'stream' is not true or false"),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_what_is_no_job_is_refused_in_words(
    agent: RunningAgent, body: bytes, status: int, words: str
) -> None:
    got, answer = await post(f"{agent.url}/execute", body)

    assert got == status
    assert json.loads(answer)["error"].startswith(words)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/execute", 405),
        ("GET", "/", 403),
        ("GET", "/api/tags", 403),
        ("POST", "/api/generate", 403),
        ("DELETE", "/api/delete", 403),
        ("POST", "/healthz", 403),
        ("POST", "/execute/../api/pull", 403),
        ("POST", "//execute", 403),
    ],
)
async def test_nothing_else_of_ollama_is_served(
    agent: RunningAgent, method: str, path: str, status: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


async def test_a_web_page_may_not_ask(agent: RunningAgent) -> None:
    answer = await post(f"{agent.url}/execute", JOB, Origin="http://evil.example")

    assert answer[0] == 403


async def test_health_is_told(agent: RunningAgent) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{agent.url}/healthz") as answer,
    ):
        told = await answer.json()

    assert (told["status"], told["node_id"], told["in_flight"]) == ("ok", "gpu-1", 0)
