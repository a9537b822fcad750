"""A plain request is answered in the same way whichever server reads it.

aiohttp reads a head that arrives in two pieces; the fast path one that arrives whole.
"""

import asyncio
import contextlib
import re
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.base.errors import UpstreamError
from ollama_proxy.core.access.hosts import HostPolicy
from ollama_proxy.server.fast.connection import ClientConnection
from ollama_proxy.serving.fleet_view import FleetView
from ollama_proxy.serving.request_context import TriedOn
from tests.fakes.instance import InProcessBackend
from tests.fakes.raw_upstream import Script
from tests.proxy import RunningProxy, needs_fast_path, relaying_proxy, running_proxy
from tests.wire import Answer, read_answer

pytestmark = needs_fast_path


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(path: str, body: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: me/1\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


ASK = '{"model":"tiny","prompt":"hi","options":{"num_predict":3},"stream":false}'
CHAT = '{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":3}'
READS = {
    "root": get("/"),
    "root, head alone": get("/", "HEAD"),
    "version": get("/api/version"),
    "version, head alone": get("/api/version", "HEAD"),
    "tags": get("/api/tags"),
    "ps": get("/api/ps"),
    "models": get("/v1/models"),
    "model": get("/v1/models/tiny"),
    "no such model": get("/v1/models/none"),
    "show": post("/api/show", '{"model":"tiny"}'),
    "show of nothing": post("/api/show", "{}"),
    "account": post("/api/me", "{}"),
}
USES = {
    "generate": post("/api/generate", ASK),
    "stream": post("/api/generate", ASK.replace("false", "true")),
    "openai": post("/v1/chat/completions", CHAT),
    "openai stream": post("/v1/chat/completions", CHAT[:-1] + ',"stream":true}'),
    "anthropic": post("/v1/messages", CHAT),
    "embed": post("/api/embed", '{"model":"tiny","input":"hi"}'),
    "broken JSON": post("/api/generate", "{"),
    "no model": post("/api/generate", "{}"),
    "unload": post("/api/generate", '{"model":"tiny","keep_alive":0}'),
    "a cloud model": post("/api/chat", CHAT.replace("tiny", "big:cloud")),
}
_CHANGING = re.compile(
    rb'"(?:created_at|created|id|request_id|[a-z_]*duration|t|retry_after|elapsed_s|'
    rb'eta_s|progress|modified_at|expires_at|message_id)":\s?("[^"]*"|[\d.]+|null)'
)


async def ask(
    proxy: RunningProxy, raw: bytes, *, split: bool = False
) -> tuple[Answer, bool]:
    """Send a request on a connection of its own, in two pieces perhaps.

    Returns the answer, and whether aiohttp read the request.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    method = raw.partition(b" ")[0].decode()
    try:
        async with asyncio.timeout(60.0):
            if split:
                writer.write(raw[:10])
                await proxy.until(lambda: proxy.behind > 0)
                raw = raw[10:]
            writer.write(raw)
            answer = await read_answer(reader, method)
            return answer, bool(proxy.behind)
    finally:
        writer.close()


def shape(answer: Answer) -> tuple[bytes, list[tuple[str, str]], bytes, bool]:
    """Return an answer without what differs from one to the next."""
    varies = {"date", "retry-after", "content-length"}
    headers = [(n, v) for n, v in answer.headers if n.lower() not in varies]
    body = re.sub(rb"req_[0-9a-f]+|chatcmpl-\w+|msg_\w+", b"", answer.body)
    names = sorted(headers) + [(n.lower(), "") for n, _ in answer.headers]
    return answer.status, sorted(names), _CHANGING.sub(b"", body), bool(answer.chunks)


@contextlib.asynccontextmanager
async def proxy_in(folder: Path, state: str) -> AsyncIterator[RunningProxy]:
    backend = InProcessBackend(boot_s=0.0 if state == "ready" else 1000.0)
    async with running_proxy(folder, backend=backend) as proxy:
        if state == "ready":
            await proxy.wake()
        yield proxy
        backend.boot_s = 0.0


async def counts(proxy: RunningProxy) -> list[str]:
    """Return what is counted of requests."""
    async with proxy.session.get(f"{proxy.url}/metrics") as told:
        lines = (await told.text()).splitlines()
    counted = (
        "ollama_proxy_requests_total{",
        "ollama_proxy_request_wait_seconds_count",
    )
    return [line for line in lines if line.startswith(counted)]


CASES = [(state, name) for state in ("asleep", "ready") for name in (*READS, *USES)]
LEFT_TO_AIOHTTP = [
    ("ready", "version, head alone"),
    ("ready", "a cloud model"),
    ("ready", "unload"),
]


@pytest.mark.parametrize(
    ("state", "name"), [case for case in CASES if case not in LEFT_TO_AIOHTTP]
)
async def test_both_servers_answer_alike(tmp_path: Path, state: str, name: str) -> None:
    raw = (READS | USES)[name]
    async with proxy_in(tmp_path / "fast", state) as proxy:
        fast, fast_was_behind = await ask(proxy, raw)
        counted = await counts(proxy)
    async with proxy_in(tmp_path / "behind", state) as proxy:
        behind, was_behind = await ask(proxy, raw, split=True)

        assert (fast_was_behind, was_behind) == (False, True)
        assert shape(fast) == shape(behind)
        assert counted == await counts(proxy)


@pytest.mark.parametrize(("state", "name"), LEFT_TO_AIOHTTP)
async def test_what_is_rare_is_left_to_aiohttp(
    tmp_path: Path, state: str, name: str
) -> None:
    async with proxy_in(tmp_path, state) as proxy:
        _, was_behind = await ask(proxy, (READS | USES)[name])

    assert was_behind


async def test_a_foreign_host_is_refused_as_behind(tmp_path: Path) -> None:
    rules = HostPolicy("me", frozenset())
    raw = get("/api/tags").replace(b"localhost", b"evil.example")
    async with running_proxy(tmp_path, hosts=rules) as proxy:
        answer, _ = await ask(proxy, raw)

    assert answer.status == b"HTTP/1.1 403 Forbidden"


@pytest.mark.parametrize("host", [b"localhost:11434", b"127.0.0.1:11434", b"[::1]"])
async def test_a_local_name_is_taken_at_once(tmp_path: Path, host: bytes) -> None:
    async with running_proxy(tmp_path, hosts=HostPolicy("me", frozenset())) as proxy:
        answer, was_behind = await ask(proxy, get("/").replace(b"localhost", host))

    assert (answer.body, was_behind) == (b"Ollama is running", False)


async def test_a_request_that_is_to_be_held_is_left_to_aiohttp(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=0.2)
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_HOLD="20s"
    ) as proxy:
        answer, was_behind = await ask(proxy, USES["generate"])

    assert (answer.status, was_behind) == (b"HTTP/1.1 200 OK", True)


async def served(folder: Path, script: Script) -> tuple[Answer, bool, list[bytes]]:
    """Ask an instance that does what ``script`` says; return what it was sent too."""
    async with relaying_proxy(folder, script) as (upstream, proxy):
        answer, was_behind = await ask(proxy, USES["generate"])
        assert proxy.parts.pool.in_flight == 0
        return answer, was_behind, upstream.heads


async def hang_up(reader: StreamReader, _writer: StreamWriter) -> None:
    await reader.readexactly(len(ASK))
    raise ConnectionResetError


async def test_a_request_that_an_instance_dropped_is_not_sent_twice(
    tmp_path: Path,
) -> None:
    answer, was_behind, sent = await served(tmp_path, hang_up)

    assert answer.status.startswith(b"HTTP/1.1 503 ")
    assert b"did not answer" in answer.body
    assert (was_behind, len(sent)) == (False, 1)


@pytest.mark.parametrize(
    ("state", "part"),
    [
        ("ready", "server.fast.handler.relay_request"),
        ("asleep", "serving.pool_status.PoolStatus.waiting"),
    ],
)
async def test_a_fault_of_our_own_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, part: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    async with proxy_in(tmp_path, state) as proxy:
        with monkeypatch.context() as patch:
            patch.setattr(f"ollama_proxy.{part}", fail)
            answer, _ = await ask(proxy, USES["generate"])
        assert proxy.parts.pool.in_flight == 0

    assert answer.status.startswith(b"HTTP/1.1 500 ")
    assert b"its log says why" in answer.body
    assert b"secret" not in answer.body


async def ask_unreachable(folder: Path, raw: bytes) -> tuple[Answer, bool]:
    """Ask while an instance takes no connections of the fast path's."""

    async def refuse(*_: object) -> None:
        raise UpstreamError("refused", arrived=False)

    async with proxy_in(folder, "ready") as proxy:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ollama_proxy.server.fast.handler.relay_request", refuse)
            return await ask(proxy, raw)


async def test_a_request_that_never_arrived_is_served_behind(tmp_path: Path) -> None:
    answer, was_behind = await ask_unreachable(tmp_path, USES["generate"])

    assert (answer.status, was_behind) == (b"HTTP/1.1 200 OK", True)


async def test_a_read_of_an_instance_that_can_not_be_reached_is_answered_from_memory(
    tmp_path: Path,
) -> None:
    answer, was_behind = await ask_unreachable(tmp_path, READS["tags"])

    assert (answer.status, was_behind) == (b"HTTP/1.1 200 OK", False)
    assert answer.header("X-Ollama-Proxy") == "asleep"


@pytest.mark.parametrize(("limit", "fits"), [("10", False), ("100", True)])
async def test_a_body_that_is_kept_comes_out_of_the_budget_as_long_as_it_is(
    tmp_path: Path, limit: str, *, fits: bool
) -> None:
    async with running_proxy(
        tmp_path, backend=InProcessBackend(), OLLAMA_PROXY_MAX_WAITING_BYTES=limit
    ) as proxy:
        await proxy.wake()
        told = [await ask(proxy, USES["generate"]) for _ in range(3)]

    assert {answer.status for answer, _ in told} == {b"HTTP/1.1 200 OK"}
    assert [was_behind for _, was_behind in told] == [not fits] * 3


async def test_clients_that_ask_at_once_are_told_different_times_to_come_back(
    tmp_path: Path,
) -> None:
    async with proxy_in(tmp_path, "asleep") as proxy:
        asked = [ask(proxy, USES["generate"]) for _ in range(20)]
        answers = [answer for answer, _ in await asyncio.gather(*asked)]

    times = [answer.header("Retry-After") for answer in answers]
    assert len(set(times)) > 1
    for answer, told in zip(answers, times, strict=True):
        assert b'"retry_after":%b}' % str(told).encode() in answer.body


async def test_clients_that_leave_at_once_leave_no_lease_behind(tmp_path: Path) -> None:
    async with proxy_in(tmp_path, "ready") as proxy:
        for _ in range(50):
            _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(USES["stream"])
            writer.transport.abort()
        answer, was_behind = await ask(proxy, USES["embed"])
        await proxy.until(lambda: proxy.parts.pool.in_flight == 0)

    assert (answer.status, was_behind) == (b"HTTP/1.1 200 OK", False)


async def test_an_early_request_behind_one_that_breaks_off_leaves_no_lease(
    tmp_path: Path,
) -> None:
    async def break_off(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readexactly(len(ASK))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        await writer.drain()
        await asyncio.sleep(0.2)
        raise ConnectionResetError

    async with relaying_proxy(tmp_path, break_off) as (upstream, proxy):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(USES["generate"])
        await reader.readuntil(b"abc")
        writer.write(USES["generate"])
        with pytest.raises(ConnectionError):
            await reader.read()
        writer.close()
        await proxy.until(lambda: proxy.parts.pool.in_flight == 0)

    assert len(upstream.heads) == 1


@pytest.mark.parametrize("early", [b"\r\n", USES["embed"], b"\r\n" * 50_000])
async def test_a_client_that_sent_early_and_left_is_noticed(
    tmp_path: Path, early: bytes
) -> None:
    left = asyncio.Event()

    async def say_nothing(reader: StreamReader, _writer: StreamWriter) -> None:
        await reader.readexactly(len(ASK))
        await reader.read()
        left.set()

    async with relaying_proxy(tmp_path, say_nothing) as (_upstream, proxy):
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(USES["generate"])
        await proxy.until(lambda: proxy.parts.pool.in_flight == 1)
        writer.write(early)
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.wait_for(left.wait(), 60.0)
        await proxy.until(lambda: proxy.parts.pool.in_flight == 0)


@pytest.mark.parametrize("body", ['{"model":"big:cloud",', "{"])
async def test_broken_json_is_refused_while_an_instance_is_up(
    tmp_path: Path, body: str
) -> None:
    async with running_proxy(
        tmp_path, backend=InProcessBackend(), OLLAMA_PROXY_LOADS_KEEP_AWAKE="false"
    ) as proxy:
        await proxy.wake()
        answer, _ = await ask(proxy, post("/api/chat", body))

    assert answer.status == b"HTTP/1.1 400 Bad Request"


def undated(answer: Answer) -> list[tuple[str, str]]:
    return sorted((n, "" if n == "Date" else value) for n, value in answer.headers)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"200 OK\r\nConnection: keep-alive\r\nContent-Length: 5", b"hello"),
        (b"200 OK\r\nConnection: Content-Length\r\nContent-Length: 5", b"hello"),
        (b"200 OK\r\nServer: its own\r\nContent-Length: 5", b"hello"),
        (b"200 O\x1b[2JK\x00\r\nContent-Length: 5", b"hello"),
        (b"204 No Content\r\nContent-Length: 5", b""),
        (b"304 Not Modified\r\nETag: x\r\nContent-Length: 5", b""),
        (b"200 OK\r\nContent-Length: 0", b""),
    ],
)
async def test_answers_are_framed_alike(
    tmp_path: Path, head: bytes, body: bytes
) -> None:
    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readexactly(len(ASK))
        writer.write(b"HTTP/1.1 " + head + b"\r\n\r\n" + body)

    async with relaying_proxy(tmp_path, script) as (_upstream, proxy):
        fast, was_behind = await ask(proxy, USES["generate"])
        behind, _ = await ask(proxy, USES["generate"], split=True)

    assert not was_behind
    assert fast.body == behind.body == body
    assert fast.status == behind.status
    assert undated(fast) == undated(behind)


async def test_a_client_that_left_before_its_hand_over_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = asyncio.Event()

    async def refuse(*_: object) -> None:
        raise UpstreamError("refused", arrived=False)

    def find_nobody(_client: ClientConnection, _tried_on: TriedOn) -> bool:
        tried.set()
        return False

    async with proxy_in(tmp_path, "ready") as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            with monkeypatch.context() as patch:
                patch.setattr("ollama_proxy.server.fast.handler.relay_request", refuse)
                patch.setattr(ClientConnection, "hand_over", find_nobody)
                writer.write(USES["generate"])
                await asyncio.wait_for(tried.wait(), 60.0)
            counted = await counts(proxy)
        finally:
            writer.close()

    abandoned = 'ollama_proxy_requests_total{kind="inference",outcome="abandoned"} 1.0'
    assert abandoned in counted


@pytest.mark.parametrize("split", [False, True])
async def test_a_read_may_take_long_once_it_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, split: bool
) -> None:
    async def slow(_reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.3)
        writer.write(b"}")

    monkeypatch.setattr(FleetView, "read_limit_s", 0.1)
    async with relaying_proxy(tmp_path, slow) as (_upstream, proxy):
        answer, _ = await ask(proxy, get("/api/ps"), split=split)

    assert answer.body == b"{}"


HOSTILE = {
    "gzip, chunked": (501, b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "a list of lengths": (400, b"Content-Length: 2, 2\r\n\r\n{}"),
    "length and chunks": (
        400,
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "no length of a chunk": (400, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "an unknown Expect": (417, b"Expect: foo\r\nContent-Length: 0\r\n\r\n"),
    "two programs": (400, b"User-Agent: a\r\nUser-Agent: b\r\n\r\n"),
    "two types": (400, b"Content-Type: a\r\nContent-Type: b\r\n\r\n"),
    "a key with a control character": (400, b"Authorization: Bearer KEY\x01\r\n\r\n"),
    "a folded header": (400, b"X-A: b\r\n c\r\n\r\n"),
    "two hosts": (400, b"Host: localhost\r\n\r\n"),
}
LINES = {
    "a malformed host": (400, b"GET / HTTP/1.1\r\nHost: a<b>\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\nX-Name: KEY\r\n\r\n"),
    "no version": (400, b"GET /api/version\r\n\r\n"),
    "another version": (505, b"GET /api/version HTTP/2.0\r\nHost: x\r\n\r\n"),
    "an unknown method": (405, b"FOO /api/version HTTP/1.1\r\nHost: x\r\n\r\n"),
    "an unknown method on no route": (404, b"FOO /x HTTP/1.1\r\nHost: x\r\n\r\n"),
    "chunks of HTTP/1.0": (
        400,
        b"POST /api/show HTTP/1.0\r\nConnection: keep-alive\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
}
HOSTILE_CASES = LINES | {
    name: (status, b"POST /api/show HTTP/1.1\r\nHost: localhost\r\n" + rest)
    for name, (status, rest) in HOSTILE.items()
}


@pytest.mark.parametrize("state", ["asleep", "ready"])
async def test_what_no_server_should_read_is_refused_alike_by_both(
    tmp_path: Path, state: str
) -> None:
    async with proxy_in(tmp_path, state) as proxy:
        for name, (status, raw) in HOSTILE_CASES.items():
            fast, _ = await ask(proxy, raw)
            await proxy.until(lambda: proxy.behind == 0)
            behind, _ = await ask(proxy, raw, split=True)
            await proxy.until(lambda: proxy.behind == 0)

            assert shape(fast) == shape(behind), name
            assert (int(fast.status.split()[1]), fast.closed) == (status, True), name
            assert fast.header("Server") is None
            assert b"KEY" not in fast.body


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 099 Odd\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nX-A: SECRET\x00\r\nContent-Length: 2\r\n\r\nhi",
    ],
)
async def test_what_is_no_answer_is_told_alike_by_both(
    tmp_path: Path, raw: bytes
) -> None:
    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readexactly(len(ASK))
        writer.write(raw)

    async with relaying_proxy(tmp_path, script) as (_upstream, proxy):
        fast, was_behind = await ask(proxy, USES["generate"])
        behind, _ = await ask(proxy, USES["generate"], split=True)

    assert not was_behind
    assert shape(fast) == shape(behind)
    assert fast.status.startswith(b"HTTP/1.1 503 ")
    assert b"SECRET" not in fast.body
