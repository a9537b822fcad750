"""A hub with its token gets all of the machine's Ollama, byte for byte, both ways."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from pytest_aiohttp.plugin import AiohttpServer

from ollama_proxy.node.relay import changes_models
from ollama_proxy.simulator.server import SIMULATOR, Manners, build_simulator
from ollama_proxy.simulator.state import Simulator
from tests.fakes.old_hub import old_hub
from tests.fakes.raw_upstream import RawUpstream, Script, raw_upstream, reply
from tests.node.agents import HUB_TOKEN, JOINED, RunningAgent, running_agent
from tests.ports import held_port

AWAY_HUB = "http://127.0.0.1:9"
BEARER = f"Bearer {HUB_TOKEN}"
TOKEN = f"Authorization: {BEARER}\r\n".encode()
HOST = b"Host: 127.0.0.1\r\n"
LAST = b"Connection: close\r\n\r\n"


@contextlib.asynccontextmanager
async def joined_to(
    script: Script, state: Path
) -> AsyncIterator[tuple[int, RawUpstream]]:
    """Run an agent that has joined, before an Ollama with ``script``."""

    async def either(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if upstream.heads[-1].startswith(b"GET /api/ps "):  # the agent's own look
            upstream.heads.pop()
            writer.write(reply(b"{}"))
        else:
            await script(reader, writer)

    async with (
        raw_upstream(either) as upstream,
        running_agent(
            state,
            access=JOINED,
            SERVER_URL=AWAY_HUB,
            OLLAMA_BASE_URL=upstream.url,
            HEARTBEAT_INTERVAL="3600",
        ) as agent,
    ):
        yield agent.port, upstream


@pytest.fixture
async def simulator(aiohttp_server: AiohttpServer) -> tuple[str, Simulator]:
    app = build_simulator(Manners(rate=100.0, vram_share=1.0), models=["tiny", "big"])
    server = await aiohttp_server(app, auto_decompress=False, shutdown_timeout=0.1)
    return str(server.make_url("")).rstrip("/"), app[SIMULATOR]


@pytest.fixture
async def agent(
    simulator: tuple[str, Simulator], tmp_path: Path
) -> AsyncIterator[RunningAgent]:
    async with running_agent(
        tmp_path, access=JOINED, SERVER_URL=AWAY_HUB, OLLAMA_BASE_URL=simulator[0]
    ) as agent:
        yield agent


async def ask(port: int, sent: bytes) -> bytes:
    """Send bytes; return all that comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


def always(answer: bytes) -> Script:
    async def script(_r: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return script


ODD_HEAD = (
    b"HTTP/1.1 299 Rather fine\r\nX-Two: b\r\nx-two: a\r\n"
    b"Date: Sun, 29 Nov 2026 21:00:00 GMT\r\n"
)


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        (b"GET", b"Content-Length: 2\r\n\r\n{}"),
        (b"GET", b"Content-Length: 0\r\n\r\n"),
        (b"HEAD", b"Content-Length: 7\r\n\r\n"),
        (
            b"GET",
            b"Content-Type: text/event-stream\r\nConnection: keep-alive\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
            b"3\r\na\n\n\r\n5\r\nb\n\n\n\n\r\n0\r\n\r\n",
        ),
        (b"GET", b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b"),
    ],
    ids=["length", "empty", "HEAD", "chunks", "compressed"],
)
async def test_an_answer_passes_as_ollama_wrote_it(
    tmp_path: Path, method: bytes, rest: bytes
) -> None:
    async with joined_to(always(ODD_HEAD + rest), tmp_path) as (port, _):
        ending = b"\r\n\r\n" if b"keep-alive" in rest else b"\r\n" + LAST
        answer = b""
        with contextlib.suppress(TimeoutError):
            sent = method + b" /odd HTTP/1.1\r\n" + HOST + TOKEN[:-2] + ending
            if b"keep-alive" in rest:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(sent)
                async with asyncio.timeout(20):
                    answer = await reader.readuntil(b"0\r\n\r\n")
                writer.close()
            else:
                answer = await ask(port, sent)

    got_head, _, got_body = answer.partition(b"\r\n\r\n")
    head, _, body = (ODD_HEAD + rest).partition(b"\r\n\r\n")
    lines = set(got_head.split(b"\r\n")) - {b"Connection: close"}
    assert lines == set(head.split(b"\r\n"))
    assert got_body == body


async def test_a_request_reaches_ollama_as_the_hub_wrote_it_less_its_token(
    tmp_path: Path,
) -> None:
    bodies = []

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        bodies.append(await reader.readexactly(12))
        writer.write(reply(b"{}"))

    async with joined_to(script, tmp_path) as (port, upstream):
        await ask(
            port,
            b"PATCH /api//odd%2Fpath?a=%20&b HTTP/1.1\r\n"
            + HOST
            + TOKEN
            + b"X-More: 1\r\nx-more: 2\r\nContent-Encoding: gzip\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"2\r\n{}\r\n0\r\n\r\n",
        )
        head = upstream.heads[0]

    assert head.startswith(b"PATCH /api//odd%2Fpath?a=%20&b HTTP/1.1\r\n")
    assert b"X-More: 1\r\nx-more: 2\r\nContent-Encoding: gzip\r\n" in head
    assert b"X-Ollama-Proxy-Via: " in head
    assert bodies == [b"2\r\n{}\r\n0\r\n\r\n"]
    assert HUB_TOKEN.encode() not in head
    assert b"uthorization" not in head


async def test_a_chat_streams_with_the_token(agent: RunningAgent) -> None:
    job = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    async with (
        aiohttp.ClientSession(headers={"Authorization": BEARER}) as session,
        session.post(f"{agent.url}/api/chat", json=job) as answer,
        session.get(f"{agent.url}/api/tags") as tags,
    ):
        lines = [json.loads(line) async for line in answer.content]
        names = [one["name"] for one in (await tags.json())["models"]]

    assert lines[-1]["done"] is True
    assert sorted(names) == ["big:latest", "tiny:latest"]


async def test_a_former_job_needs_the_token_as_well(agent: RunningAgent) -> None:
    job = {"model": "tiny", "prompt": "hi", "stream": False}
    async with aiohttp.ClientSession() as session:
        statuses = []
        for fields in ({}, {"Authorization": BEARER}):
            async with session.post(
                f"{agent.url}/execute", json=job, headers=fields
            ) as answer:
                statuses.append(answer.status)

    assert statuses == [401, 200]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"", 401),
        (b"Authorization: Bearer wrong\r\n", 401),
        (b"X-Api-Key: %b\r\n" % HUB_TOKEN.encode(), 401),
        (TOKEN + TOKEN, 401),
        (TOKEN + b"Authorization: Bearer wrong\r\n", 401),
        (TOKEN + b"Origin: http://evil.example\r\n", 403),
        (b"Origin: null\r\n" + TOKEN, 403),
    ],
    ids=["none", "wrong", "other header", "twice", "two", "page", "page in a frame"],
)
async def test_whoever_has_no_token_gets_nothing_of_ollama(
    tmp_path: Path, fields: bytes, status: int
) -> None:
    async with joined_to(always(reply(b"{}")), tmp_path) as (port, upstream):
        for path in (b"/api/chat", b"/execute", b"/", b"/healthz/../api/chat"):
            head = b"POST " + path + b" HTTP/1.1\r\n" + HOST + fields
            answer = await ask(port, head + b"Content-Length: 2\r\n" + LAST + b"{}")
            assert answer.startswith(b"HTTP/1.1 %d " % status), path
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        heads = upstream.heads

    assert heads == []


@pytest.mark.parametrize(
    "host", [b"evil.example", b"evil.example:8001", b"1.2.3.4.nip.io"]
)
async def test_a_foreign_name_is_refused_even_with_the_token(
    tmp_path: Path, host: bytes
) -> None:
    async with joined_to(always(reply(b"{}")), tmp_path) as (port, upstream):
        head = b"GET /api/x HTTP/1.1\r\nHost: " + host + b"\r\n" + TOKEN
        answer = await ask(port, head + LAST)
        heads = upstream.heads

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert heads == []


async def test_a_nonce_is_proved_by_a_node_that_has_joined(agent: RunningAgent) -> None:
    nonce = "n" * 32
    answers = [
        json.loads((await ask(agent.port, target)).partition(b"\r\n\r\n")[2])
        for target in (
            b"GET /healthz?nonce=%b HTTP/1.1\r\n" % nonce.encode() + HOST + LAST,
            b"GET /healthz?nonce=short HTTP/1.1\r\n" + HOST + LAST,
            b"GET /healthz HTTP/1.1\r\n" + HOST + LAST,
        )
    ]

    assert answers[0]["proof"] == JOINED.proof(nonce)
    assert "proof" not in answers[1] | answers[2]


async def test_a_hub_that_leaves_ends_the_generation(
    agent: RunningAgent, simulator: tuple[str, Simulator]
) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": BEARER}) as session:
        job = {"model": "tiny", "prompt": "hi", "options": {"num_predict": 100_000}}
        answer = await session.post(f"{agent.url}/api/generate", json=job)
        await answer.content.readline()
        answer.close()

    async with asyncio.timeout(20):
        while simulator[1].counters.in_flight:
            await asyncio.sleep(0.01)
    assert simulator[1].counters.cancelled == 1


async def test_a_stream_that_ollama_breaks_off_is_cut(tmp_path: Path) -> None:
    async def script(_r: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n"
        )
        await writer.drain()
        writer.close()

    async with joined_to(script, tmp_path) as (port, _):
        request = b"POST /api/chat HTTP/1.1\r\n" + HOST + TOKEN + LAST
        with contextlib.suppress(ConnectionResetError):
            assert not (await ask(port, request)).endswith(b"0\r\n\r\n")


async def test_an_ollama_that_is_away_is_said_so(tmp_path: Path) -> None:
    async with running_agent(
        tmp_path,
        access=JOINED,
        SERVER_URL=AWAY_HUB,
        OLLAMA_BASE_URL=f"http://127.0.0.1:{held_port()}",
    ) as agent:
        request = b"POST /api/chat HTTP/1.1\r\n" + HOST + TOKEN
        answer = await ask(
            agent.port, request + b"Content-Length: 2\r\n" + LAST + b"{}"
        )

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"can't be asked" in answer


async def test_a_request_that_comes_round_again_is_refused(tmp_path: Path) -> None:
    async with joined_to(always(reply(b"{}")), tmp_path) as (port, upstream):
        request = b"GET /api/x HTTP/1.1\r\n" + HOST + TOKEN
        await ask(port, request + LAST)
        mark = next(
            line for line in upstream.heads[0].split(b"\r\n") if b"-Via: " in line
        )
        answer = await ask(port, request + mark + b"\r\n" + LAST)

    assert answer.startswith(b"HTTP/1.1 508 ")


async def test_ollama_invites_an_upload_or_refuses_it_unseen(tmp_path: Path) -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if b"/refused" in upstream.heads[-1]:
            writer.write(reply(b"no").replace(b"200 OK", b"400 Bad Request"))
            return
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await reader.readexactly(5)
        writer.write(reply(b"{}"))

    rest = b"Content-Length: 5\r\nExpect: 100-continue\r\n" + LAST
    async with joined_to(script, tmp_path) as (port, upstream):
        refused = await ask(port, b"POST /refused HTTP/1.1\r\n" + HOST + TOKEN + rest)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /taken HTTP/1.1\r\n" + HOST + TOKEN + rest)
        async with asyncio.timeout(20):
            invited = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"12345")
            taken = await reader.read()
        writer.close()

    assert refused.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert invited == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert taken.startswith(b"HTTP/1.1 200 OK\r\n")


async def pushed(writer: asyncio.StreamWriter, piece: bytes, most: int) -> int:
    """Write until the other side takes no more for a second; return how many bytes."""
    done = 0
    while done < most:
        writer.write(piece)
        done += len(piece)
        try:
            async with asyncio.timeout(1):
                await writer.drain()
        except TimeoutError:
            break
    return done


async def test_an_upload_waits_for_a_slow_ollama_and_is_held_nowhere(
    tmp_path: Path,
) -> None:
    go_on = asyncio.Event()
    total = 64 << 20

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await go_on.wait()
        left = total
        while left:
            left -= len(await reader.read(1 << 20))
        writer.write(reply(b"{}"))

    async with joined_to(script, tmp_path) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        length = b"Content-Length: %d\r\n" % total
        writer.write(b"POST /api/blobs/a HTTP/1.1\r\n" + HOST + TOKEN + length + LAST)
        sent = await pushed(writer, b"x" * (1 << 20), total)
        go_on.set()
        async with asyncio.timeout(60):
            for _ in range((total - sent) >> 20):
                writer.write(b"x" * (1 << 20))
                await writer.drain()
            answer = await reader.read()
        writer.close()

    assert sent < 48 << 20  # what the kernel holds at both ends, and a buffer of ours
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_an_answer_waits_for_a_slow_hub_and_is_held_nowhere(
    tmp_path: Path,
) -> None:
    sent = []

    async def script(_r: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        sent.append(await pushed(writer, b"x" * (1 << 20), 64 << 20))
        for _ in range(64 - (sent[0] >> 20)):
            writer.write(b"x" * (1 << 20))
            await writer.drain()

    async with joined_to(script, tmp_path) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/x HTTP/1.1\r\n" + HOST + TOKEN + LAST)
        await asyncio.sleep(2)
        async with asyncio.timeout(60):
            read = 0
            while data := await reader.read(1 << 20):
                read += len(data)
        writer.close()

    assert sent[0] < 48 << 20
    assert read > 64 << 20


@pytest.mark.parametrize(
    "sent",
    [
        b"no request at all\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization: \0" + HUB_TOKEN.encode() + b"\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused_and_fills_no_log(
    tmp_path: Path, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with joined_to(always(reply(b"{}")), tmp_path) as (port, _):
        answer = await ask(port, sent)

    assert b" 400 " in answer[:14]
    assert "aiohttp" not in caplog.text


async def in_flight(port: int) -> int:
    answer = await ask(port, b"GET /healthz HTTP/1.1\r\n" + HOST + LAST)
    return int(json.loads(answer.partition(b"\r\n\r\n")[2])["in_flight"])


async def test_an_ollama_that_hangs_holds_up_nothing_but_its_requests(
    tmp_path: Path,
) -> None:
    async def hang(reader: asyncio.StreamReader, _w: asyncio.StreamWriter) -> None:
        await reader.read()

    async with joined_to(hang, tmp_path) as (port, _):
        writers = []
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /api/x HTTP/1.1\r\n" + HOST + TOKEN + b"\r\n")
            writers.append(writer)
        async with asyncio.timeout(20):
            while await in_flight(port) < 20:
                await asyncio.sleep(0.01)
        for writer in writers:
            writer.close()
        async with asyncio.timeout(20):
            while await in_flight(port):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("asked", "is_news"),
    [
        ("POST /api/copy", True),
        ("DELETE /api/delete", True),
        ("POST /api/pull?x=1", True),
        ("POST /api/create", True),
        ("POST /api/blobs/sha256:00", False),
        ("POST /api/chat", False),
        ("GET /api/tags", False),
    ],
)
def test_what_may_change_models_is_news_for_the_hub(asked: str, is_news: bool) -> None:
    method, target = asked.split()

    assert changes_models(make_mocked_request(method, target)) is is_news


async def test_a_hub_soon_learns_that_models_have_changed(
    simulator: tuple[str, Simulator], tmp_path: Path
) -> None:
    copy = b'{"source":"tiny","destination":"mine"}'
    async with (
        old_hub() as hub,
        running_agent(
            tmp_path,
            access=JOINED,
            SERVER_URL=hub.url,
            OLLAMA_BASE_URL=simulator[0],
            HEARTBEAT_INTERVAL="3600",
        ) as agent,
    ):
        await hub.until(1)
        framed = b"Content-Length: %d\r\n" % len(copy) + LAST + copy
        answer = await ask(
            agent.port, b"POST /api/copy HTTP/1.1\r\n" + HOST + TOKEN + framed
        )
        beat = await hub.until(2)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert "mine:latest" in beat["models"]
