"""What puts off the end of an idle instance, on either server."""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.core.lifecycle.events import Tick
from ollama_proxy.simulator.server import Manners
from tests.fakes.instance import InProcessBackend
from tests.fakes.raw_upstream import Script, raw_upstream
from tests.proxy import RunningProxy, running_proxy
from tests.virtual_time import SetClock
from tests.wire import read_answer

PASSED_S = 60.0
ASK = '{"model":"tiny","prompt":"hi","stream":false}'
CHAT = '{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":9}'
MISSING = CHAT.replace("tiny", "none")
servers = pytest.mark.parametrize("behind", [False, True], ids=["fast", "behind"])


def request(path: str, body: str, method: str = "POST", **fields: str) -> bytes:
    """Return a request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def in_chunks(raw: bytes) -> bytes:
    """Return a request without a Content-Length."""
    head, _, body = raw.partition(b"\r\n\r\n")
    head = head.replace(
        b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"
    )
    return head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


async def send(proxy: RunningProxy, raw: bytes, *, behind: bool) -> bytes:
    """Send a request, in two pieces if aiohttp's server is to read it.

    Returns the status line; "" if the connection was reset.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    method = raw.partition(b" ")[0].decode()
    try:
        async with asyncio.timeout(10.0):
            if behind:
                writer.write(raw[:10])
                await proxy.until(lambda: proxy.behind > 0)
                raw = raw[10:]
            writer.write(raw)
            return (await read_answer(reader, method)).status
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    finally:
        writer.close()


async def idle_s(proxy: RunningProxy) -> float:
    """Return for how long nothing was use, once nothing is in flight."""
    await proxy.until(lambda: proxy.parts.pool.in_flight == 0)
    told = (await proxy.status())["idle_for_s"]
    assert isinstance(told, float)
    return told


async def used_by(
    proxy: RunningProxy, clock: SetClock, raw: bytes, *, behind: bool
) -> bool:
    """Tell whether a request that comes after a minute puts off the end."""
    before = await idle_s(proxy)
    clock.moment += PASSED_S
    await send(proxy, raw, behind=behind)
    after = await idle_s(proxy)
    assert after in {0.0, before + PASSED_S}
    return after == 0.0


async def those_that_are_use(
    folder: Path, requests: Mapping[str, bytes], *, behind: bool
) -> list[str]:
    """Return which requests put off the end of an instance that has them all."""
    clock = SetClock()
    async with running_proxy(folder, clock=clock) as proxy:
        await proxy.wake()
        return [
            name
            for name, raw in requests.items()
            if await used_by(proxy, clock, raw, behind=behind)
        ]


USE = {
    "an answer": request("/api/generate", ASK),
    "a stream": request("/api/generate", ASK.replace("false", "true")),
    "openai": request("/v1/chat/completions", CHAT),
    "openai's stream": request("/v1/chat/completions", CHAT[:-1] + ',"stream":true}'),
    "anthropic": request("/v1/messages", CHAT),
    "a vector": request("/api/embed", '{"model":"tiny","input":"hi"}'),
    "a load": request("/api/generate", '{"model":"tiny"}'),
    "a load for a nanosecond": request(
        "/api/generate", '{"model":"tiny","keep_alive":"1ns"}'
    ),
    "a pull": request("/api/pull", '{"model":"other"}'),
    "a pull without a stream": request("/api/pull", '{"model":"b","stream":false}'),
    "a copy": request("/api/copy", '{"source":"tiny","destination":"c"}'),
    "a deletion": request("/api/delete", '{"model":"c"}', "DELETE"),
    "a stream that ends in an error": request(
        "/api/chat", CHAT, X_Simulator_Fault="error-after=2"
    ),
    "a stream that is cut": request(
        "/api/chat", CHAT, X_Simulator_Fault="reset-after=2"
    ),
}
NO_USE = {
    "a missing model": request("/api/generate", ASK.replace("tiny", "none")),
    "openai's missing model": request("/v1/chat/completions", MISSING),
    "anthropic's missing model": request("/v1/messages", MISSING),
    "broken JSON": request("/api/generate", "{"),
    "no model": request("/api/generate", "{}"),
    "a failure": request("/api/chat", CHAT, X_Simulator_Fault="status=500"),
    "another's 503": request("/api/chat", CHAT, X_Simulator_Fault="status=503"),
    "a cut before a token": request(
        "/api/chat", CHAT, X_Simulator_Fault="reset-after=0"
    ),
    "an error before a token": request(
        "/v1/chat/completions",
        CHAT[:-1] + ',"stream":true}',
        X_Simulator_Fault="error-after=0",
    ),
    "a pull of what is missing": request("/api/pull", '{"model":"missing"}'),
    "the same without a stream": request(
        "/api/pull", '{"model":"missing","stream":false}'
    ),
    "a push of what is missing": request("/api/push", '{"model":"none"}'),
    "a copy of what is missing": request(
        "/api/copy", '{"source":"none","destination":"c"}'
    ),
    "a deletion of what is missing": request(
        "/api/delete", '{"model":"none"}', "DELETE"
    ),
    "a read": request("/api/show", '{"model":"tiny"}'),
    "our own": request("/-/wake", ""),
    "a route that is not there": request("/api/unknown", "{}"),
}


@servers
async def test_what_succeeds_or_has_begun_is_use(
    tmp_path: Path, *, behind: bool
) -> None:
    used = await those_that_are_use(tmp_path, USE, behind=behind)

    assert used == list(USE)


@servers
async def test_what_fails_or_needs_no_work_is_no_use(
    tmp_path: Path, *, behind: bool
) -> None:
    assert await those_that_are_use(tmp_path, NO_USE, behind=behind) == []


NO_TIME = ["0", "0.0", "-0", "1e-10", '"0"', '"0s"', '"-0h0m0.0s"', '"0us"', '"0.9ns"']


@servers
async def test_unloads_are_passed_on_and_no_use(
    tmp_path: Path, *, behind: bool
) -> None:
    generate = '{"model":"tiny","prompt":"","keep_alive":%s}'
    chat = '{"model":"tiny","messages":[ ],"keep_alive":%s}'
    unloads = {f"chat {no}": request("/api/chat", chat % no) for no in NO_TIME}
    for no in NO_TIME:
        unloads[f"generate {no}"] = request("/api/generate", generate % no)
    unloads["of unknown length"] = in_chunks(request("/api/chat", chat % "0"))
    backend, clock = InProcessBackend(), SetClock()
    async with running_proxy(tmp_path, backend=backend, clock=clock) as proxy:
        await proxy.wake()
        used = [
            name
            for name, raw in unloads.items()
            if await used_by(proxy, clock, raw, behind=behind)
        ]
        asked = backend.simulator.counters.requests

    assert used == []
    assert (asked["/api/chat"], asked["/api/generate"]) == (10, 9)


@pytest.mark.parametrize("detached", ["true", "false"])
async def test_a_pull_is_use_while_it_moves_and_none_once_it_fails(
    tmp_path: Path, detached: str
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    def line(completed: int) -> bytes:
        said = b'{"status":"pulling a","digest":"a","total":9,"completed":%d}\n'
        return b"%x\r\n%b\r\n" % (len(said % completed), said % completed)

    clock, proceed = SetClock(), asyncio.Event()

    async def pulling(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.read(1 << 16)
        writer.write(head + line(1) + line(2))
        await proceed.wait()
        writer.write(line(2) + line(2))
        await writer.drain()
        raise ConnectionResetError

    async with script_proxy(tmp_path, pulling, clock, detached=detached) as proxy:
        clock.moment += PASSED_S
        controller = proxy.parts.pool.controllers[0]

        def both_lines_were_read() -> bool:
            pulls = proxy.parts.pulls.of("m")
            completed = [one.progress.completed for one in pulls]
            is_used = controller.record.last_used == clock.moment
            return is_used and (detached == "false" or completed == [2])

        async with asyncio.TaskGroup() as asking:
            raw = request("/api/pull", '{"model":"m"}')
            asking.create_task(send(proxy, raw, behind=False))
            await proxy.until(both_lines_were_read)
            clock.moment += PASSED_S
            proceed.set()

        assert await idle_s(proxy) == PASSED_S


async def test_a_pull_that_nobody_follows_any_more_is_use_at_its_end(
    tmp_path: Path,
) -> None:
    backend, clock = InProcessBackend(Manners(pull_s=0.5)), SetClock()
    async with running_proxy(tmp_path, backend=backend, clock=clock) as proxy:
        await proxy.wake()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request("/api/pull", '{"model":"other"}'))
        await reader.readuntil(b"pulling manifest")
        writer.close()
        await proxy.until(lambda: proxy.parts.pool.in_flight == 1)
        clock.moment += PASSED_S

        assert await idle_s(proxy) == 0.0


@contextlib.asynccontextmanager
async def script_proxy(
    folder: Path, script: Script, clock: SetClock, *, detached: str = "true"
) -> AsyncIterator[RunningProxy]:
    """Run a proxy before a server that does what ``script`` says."""
    async with raw_upstream(script) as upstream:
        backend = StaticBackend(upstream.url)
        async with running_proxy(
            folder,
            backend=backend,
            clock=clock,
            OLLAMA_PROXY_DETACHED_PULLS=detached,
        ) as proxy:
            await proxy.until(lambda: proxy.state == "ready")
            yield proxy


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


async def leave_after(folder: Path, said: bytes, *, behind: bool) -> float:
    """Ask, leave after ``said`` was received; return for how long it is idle then."""

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.read(1 << 16)
        writer.write(STREAM_HEAD)
        if said:
            writer.write(b"%x\r\n%b\r\n" % (len(said), said))
        await reader.read()

    clock = SetClock()
    raw = request("/api/generate", ASK.replace("false", "true"))
    async with script_proxy(folder, script, clock) as proxy:
        clock.moment += PASSED_S
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(raw[:10])
        if behind:
            await proxy.until(lambda: proxy.behind > 0)
        writer.write(raw[10:])
        await reader.readuntil(said or b"\r\n\r\n")
        writer.close()
        return await idle_s(proxy)


TOKEN = b'{"model":"tiny","response":"a","done":false}\n'


@servers
@pytest.mark.parametrize("said", [TOKEN, TOKEN.strip(), TOKEN[:30]])
async def test_a_client_that_leaves_after_the_first_token_used_the_machine(
    tmp_path: Path, said: bytes, *, behind: bool
) -> None:
    assert await leave_after(tmp_path, said, behind=behind) == 0.0


@servers
@pytest.mark.parametrize("said", [b"", b"   ", b'{"error":"no"}\n'])
async def test_a_client_that_leaves_before_did_not(
    tmp_path: Path, said: bytes, *, behind: bool
) -> None:
    assert await leave_after(tmp_path, said, behind=behind) == PASSED_S


@servers
async def test_a_server_whose_queue_is_full_is_in_use(
    tmp_path: Path, *, behind: bool
) -> None:
    body = b'{"error":"server busy, please try again.  maximum pending requests"}'

    async def busy(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.read(1 << 16)
        head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)

    clock = SetClock()
    async with script_proxy(tmp_path, busy, clock) as proxy:
        clock.moment += PASSED_S
        await send(proxy, request("/api/generate", ASK), behind=behind)

        assert await idle_s(proxy) == 0.0


async def test_a_held_request_that_fails_is_no_use(tmp_path: Path) -> None:
    backend, clock = InProcessBackend(Manners(), boot_s=0.3), SetClock()
    async with running_proxy(
        tmp_path, backend=backend, clock=clock, OLLAMA_PROXY_HOLD="9s"
    ) as proxy:
        controller = proxy.parts.pool.controllers[0]
        async with asyncio.TaskGroup() as asking:
            raw = request("/api/chat", MISSING)
            asking.create_task(send(proxy, raw, behind=False))
            await proxy.until(lambda: proxy.state == "starting")
            clock.moment += PASSED_S
            await proxy.until(lambda: proxy.state == "ready")
            clock.moment += PASSED_S

        assert controller.record.last_used == controller.record.since


SLOW = {
    "a read": request("/api/show", '{"model":"tiny"}', X_Simulator_Fault="delay=0.4"),
    "a failure": request("/api/chat", CHAT, X_Simulator_Fault="delay=0.4,status=500"),
    "an unload": request(
        "/api/chat",
        '{"model":"tiny","messages":[],"keep_alive":0}',
        X_Simulator_Fault="delay=0.4",
    ),
}


@servers
@pytest.mark.parametrize("name", SLOW)
async def test_whatever_is_in_flight_holds_its_instance_until_it_ends(
    tmp_path: Path, name: str, *, behind: bool
) -> None:
    clock = SetClock()
    async with running_proxy(tmp_path, clock=clock) as proxy:
        await proxy.wake()
        async with asyncio.TaskGroup() as asking:
            asking.create_task(send(proxy, SLOW[name], behind=behind))
            await proxy.until(lambda: proxy.parts.pool.in_flight == 1)
            clock.moment += 7200.0
            proxy.parts.pool.controllers[0].apply(Tick())
            assert proxy.state == "ready"
        await proxy.until(lambda: proxy.state == "cold")
