"""Behind a gateway that ends whatever its Ollama broke off, clients see the loss."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
import structlog

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.base import log
from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.composition import open_backend
from ollama_proxy.config.loader import load_settings
from ollama_proxy.core.http.chunks import framed
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.store.sqlite.store import SqliteStore
from ollama_proxy.upstream.endpoint import Link
from tests.clients.kits import KITS, NODE
from tests.clients.late_import import LateImport
from tests.fakes.ollama import answers
from tests.fakes.raw_upstream import Script, raw_upstream
from tests.ports import held_port
from tests.proxy import RunningProxy, running_proxy

if TYPE_CHECKING:
    import openai
else:
    openai = LateImport("openai")

CADDY = shutil.which("caddy")
NDJSON = b"application/x-ndjson"
SSE = b"text/event-stream"
JSON = b"application/json; charset=utf-8"
LOST = b"the instance was lost in the middle of the answer"
TOKEN = b'{"model":"tiny","message":{"role":"assistant","content":"hi"},"done":false}\n'
DELTA = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
)
BLOCK = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"hi"}}\n\n'
)
START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m",'
    b'"type":"message","role":"assistant","model":"tiny","content":[],'
    b'"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What an Ollama says: ``begun``, and then ``rest`` if it does not break off."""

    path: str
    content_type: bytes
    begun: bytes
    rest: bytes

    @property
    def streams(self) -> bool:
        return self.content_type != JSON


REPLIES = {
    "chat": Reply("/api/chat", NDJSON, TOKEN, b'{"done":true,"context":[1]}\n'),
    "generate in a line": Reply(
        "/api/generate", NDJSON, b'{"done":true,"context":[1,', b"2]}\n"
    ),
    "pull": Reply(
        "/api/pull", NDJSON, b'{"status":"pulling"}\n', b'{"status":"success"}\n'
    ),
    "create": Reply("/api/create", NDJSON, b'{"status":"a"}\n', b'{"error":"no"}\n'),
    "openai": Reply("/v1/chat/completions", SSE, DELTA, b"data: [DONE]\n\n"),
    "responses": Reply(
        "/v1/responses",
        SSE,
        b'event: response.created\ndata: {"type":"response.created"}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed"}\n\n',
    ),
    "anthropic": Reply(
        "/v1/messages",
        SSE,
        START + BLOCK,
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ),
    "whole chat": Reply("/api/chat", JSON, b'{"message":{"content":"a}"', b"}}"),
    "show": Reply("/api/show", JSON, b'{"license":"', b'x"}'),
    "embed": Reply("/v1/embeddings", JSON, b'{"data":[[1,', b"2]]}\n"),
}


def gateway(reply: Reply, *, breaks_off: bool) -> Script:
    """Answer as a gateway does whose Ollama says so: the body ends cleanly."""

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
            % reply.content_type
        )
        writer.write(framed(reply.begun))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"" if breaks_off else framed(reply.rest))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"0\r\n\r\n")

    return script


BODY = b'{"model":"tiny","stream":true}'


@contextlib.asynccontextmanager
async def proxy_before(
    folder: Path, url: str, *, is_gateway: bool = True
) -> AsyncIterator[RunningProxy]:
    backend = StaticBackend(url, is_gateway=is_gateway)
    async with running_proxy(folder, backend=backend) as proxy:
        await proxy.until(lambda: proxy.state == "ready")
        yield proxy


async def told(
    proxy: RunningProxy, path: str, headers: Mapping[str, str] | None = None
) -> bytes:
    url, sent = f"{proxy.url}{path}", headers or {}
    async with proxy.session.post(url, data=BODY, headers=sent) as answer:
        assert answer.status == 200
        return await answer.read()


@pytest.fixture(params=REPLIES)
def reply(request: pytest.FixtureRequest) -> Reply:
    return REPLIES[request.param]


# An ``Origin`` has the server behind serve what the fast path would.
@pytest.mark.parametrize("headers", [{}, {"Origin": "http://localhost"}])
async def test_a_whole_answer_passes_as_it_is(
    tmp_path: Path, reply: Reply, headers: dict[str, str]
) -> None:
    async with (
        raw_upstream(gateway(reply, breaks_off=False)) as there,
        proxy_before(tmp_path, there.url) as proxy,
    ):
        assert await told(proxy, reply.path, headers) == reply.begun + reply.rest


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://localhost"}])
async def test_an_answer_that_ends_early_is_no_success(
    tmp_path: Path, reply: Reply, headers: dict[str, str]
) -> None:
    async with (
        raw_upstream(gateway(reply, breaks_off=True)) as there,
        proxy_before(tmp_path, there.url) as proxy,
    ):
        if reply.streams:
            body = await told(proxy, reply.path, headers)

            assert body.startswith(reply.begun)
            assert LOST in body[len(reply.begun) :]
        else:
            with pytest.raises(aiohttp.ClientError):
                await told(proxy, reply.path, headers)


async def test_without_the_setting_it_passes_as_it_comes(
    tmp_path: Path, reply: Reply
) -> None:
    async with (
        raw_upstream(gateway(reply, breaks_off=True)) as there,
        proxy_before(tmp_path, there.url, is_gateway=False) as proxy,
    ):
        assert await told(proxy, reply.path) == reply.begun


async def test_the_setting_reaches_the_upstream(tmp_path: Path) -> None:
    settings = load_settings(
        {
            "OLLAMA_PROXY_UPSTREAM_URL": "http://h:1",
            "OLLAMA_PROXY_UPSTREAM_IS_GATEWAY": "true",
        }
    )
    store = SqliteStore(tmp_path)
    backend = open_backend(settings, store, SystemClock())
    await backend.start(LaunchId("l"))
    upstream = (await backend.inspect(LaunchId("l"))).upstream
    store.close()

    assert upstream is not None
    assert upstream.has_gateway


def test_whatever_has_a_link_has_a_gateway() -> None:
    assert Upstream("https://h", Link("token")).has_gateway
    assert not Upstream("http://h").has_gateway


def test_no_other_backend_takes_the_setting() -> None:
    with pytest.raises(SettingsError, match=r"IS_GATEWAY: only .*'static'.*'local'"):
        load_settings({"OLLAMA_PROXY_UPSTREAM_IS_GATEWAY": "true"})


async def test_a_pull_that_ends_early_is_no_success_for_any_client(
    tmp_path: Path,
) -> None:
    async with (
        raw_upstream(gateway(REPLIES["pull"], breaks_off=True)) as there,
        proxy_before(tmp_path, there.url) as proxy,
    ):
        url = f"{proxy.url}/api/pull"
        async with (
            proxy.session.post(url, data=BODY) as first,
            proxy.session.post(url, data=BODY) as second,
        ):
            ends = [await first.read(), await second.read()]

    assert all(LOST in end for end in ends)


async def test_a_pull_without_progress_that_ends_early_is_a_503(
    tmp_path: Path,
) -> None:
    script = gateway(REPLIES["pull"], breaks_off=True)
    async with (
        raw_upstream(script) as there,
        proxy_before(tmp_path, there.url) as proxy,
    ):
        url, quiet = f"{proxy.url}/api/pull", BODY.replace(b"true", b"false")
        async with proxy.session.post(url, data=quiet) as answer:
            assert answer.status == 503
            assert "not whole" in await answer.text()


async def test_a_body_that_ends_with_its_connection_is_looked_at_too(
    tmp_path: Path,
) -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: " + NDJSON)
        writer.write(b"\r\nConnection: close\r\n\r\n" + TOKEN)
        raise ConnectionResetError

    async with (
        raw_upstream(script) as there,
        proxy_before(tmp_path, there.url) as proxy,
    ):
        assert LOST in await told(proxy, "/api/chat")


async def test_the_log_says_how_the_loss_was_seen(tmp_path: Path) -> None:
    async with (
        raw_upstream(gateway(REPLIES["chat"], breaks_off=True)) as there,
        proxy_before(tmp_path, there.url) as proxy,
    ):
        with structlog.testing.capture_logs() as logged:
            await told(proxy, "/api/chat")

    lost = [event for event in logged if event["event"] == log.ANSWER_LOST]
    assert [event["error"] for event in lost] == [
        "the answer ended cleanly, but is not whole"
    ]


async def streamed(tmp_path: Path, parts: list[bytes], *, breaks_off: bool) -> bytes:
    """Return what reaches a client of a chat that comes in these chunks."""

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: " + NDJSON)
        writer.write(b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in parts:
            writer.write(framed(part))
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.write(b"" if breaks_off else framed(REPLIES["chat"].rest))
        await asyncio.sleep(0.001)
        writer.write(b"0\r\n\r\n")

    async with (
        raw_upstream(script) as there,
        proxy_before(tmp_path, there.url) as proxy,
    ):
        return await told(proxy, "/api/chat")


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 18, 40])
@pytest.mark.parametrize("size", [1, 600])
async def test_the_end_is_seen_behind_any_number_of_tokens(
    tmp_path: Path, count: int, size: int
) -> None:
    token = TOKEN.replace(b"hi", b"x" * size)
    whole = await streamed(tmp_path / "a", [token] * count, breaks_off=False)
    early = await streamed(tmp_path / "b", [token] * count, breaks_off=True)

    assert whole == token * count + REPLIES["chat"].rest
    assert early.startswith(token * count)
    assert LOST in early


async def test_the_connection_to_the_gateway_serves_on(tmp_path: Path) -> None:
    async with (
        raw_upstream(gateway(REPLIES["chat"], breaks_off=True)) as there,
        proxy_before(tmp_path, there.url) as proxy,
    ):
        await told(proxy, "/api/chat")
        before = there.connections
        await told(proxy, "/api/chat")

        assert there.connections == before


LONG = {
    "context": Reply(
        "/api/generate",
        NDJSON,
        TOKEN + b'{"done":true,"context":[' + b"12345," * 100_000,
        b"1]}\n",
    ),
    "response": Reply(
        "/v1/responses",
        SSE,
        b"event: response.completed\n"
        b'data: {"type":"response.completed","response":{"text":"'
        + b'say \\"}\\" '
        * 100_000,
        b'"}}\n\n',
    ),
    "whole": Reply("/api/show", JSON, b'{"a":[' + b'"}]",' * 200_000, b"1]}"),
}


@pytest.mark.parametrize("name", LONG)
async def test_an_end_that_is_a_megabyte_long_is_seen(
    tmp_path: Path, name: str
) -> None:
    reply = LONG[name]
    async with (
        raw_upstream(gateway(reply, breaks_off=False)) as there,
        proxy_before(tmp_path / "a", there.url) as proxy,
    ):
        assert await told(proxy, reply.path) == reply.begun + reply.rest
    async with (
        raw_upstream(gateway(reply, breaks_off=True)) as there,
        proxy_before(tmp_path / "b", there.url) as proxy,
    ):
        if reply.streams:
            assert LOST in (await told(proxy, reply.path))[-300:]
        else:
            with pytest.raises(aiohttp.ClientError):
                await told(proxy, reply.path)


@contextlib.asynccontextmanager
async def caddy_before(folder: Path, url: str) -> AsyncIterator[str]:
    """Run a Caddy before a server as our guards do, and return its URL."""
    port = held_port()  # its file must name one
    (folder / "Caddyfile").write_text(
        f"{{\n admin off\n}}\nhttp://127.0.0.1:{port} {{\n"
        f" reverse_proxy {url} {{\n  flush_interval -1\n }}\n}}\n"
    )
    process = await asyncio.create_subprocess_exec(
        "caddy",
        "run",
        "--config",
        str(folder / "Caddyfile"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
    )
    try:
        async with asyncio.timeout(20):
            while not await answers(port):
                await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


def ollama(reply: Reply) -> Script:
    """Break off in the middle, as an Ollama that is killed does."""

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(1)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
            % reply.content_type
        )
        writer.write(framed(reply.begun))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    return script


@pytest.mark.skipif(CADDY is None, reason="there is no `caddy` on the PATH")
async def test_a_real_caddy_hides_the_loss_and_we_do_not(
    tmp_path: Path, reply: Reply
) -> None:
    async with (
        raw_upstream(ollama(reply)) as there,
        caddy_before(tmp_path, there.url) as url,
    ):
        async with proxy_before(tmp_path / "a", url, is_gateway=False) as proxy:
            assert await told(proxy, reply.path) == reply.begun
        async with proxy_before(tmp_path / "b", url) as proxy:
            if reply.streams:
                assert LOST in await told(proxy, reply.path)
            else:
                with pytest.raises(aiohttp.ClientError):
                    await told(proxy, reply.path)


CHATS = {
    "ollama": "chat",
    "langchain": "chat",
    "ollama-js": "chat",
    "openai": "openai",
    "anthropic": "anthropic",
}


@pytest.mark.skipif(CADDY is None, reason="there is no `caddy` on the PATH")
@pytest.mark.parametrize("name", KITS)
async def test_a_client_behind_a_real_caddy_sees_an_error(
    tmp_path: Path, name: str
) -> None:
    if name == "ollama-js" and NODE is None:
        pytest.skip("there is no Node, or `npm ci` was not run in tests/js")
    kit, script = KITS[name], ollama(REPLIES[CHATS[name]])
    async with (
        raw_upstream(script) as there,
        caddy_before(tmp_path, there.url) as url,
        proxy_before(tmp_path, url) as proxy,
        aclosing(kit.stream(proxy.url, {})) as pieces,
    ):
        with pytest.raises(kit.errors, match="the instance was lost"):
            _ = [piece async for piece in pieces]


@pytest.mark.skipif(CADDY is None, reason="there is no `caddy` on the PATH")
@pytest.mark.parametrize("name", KITS)
async def test_a_client_that_wants_it_whole_behind_a_real_caddy_sees_an_error(
    tmp_path: Path, name: str
) -> None:
    if name == "ollama-js" and NODE is None:
        pytest.skip("there is no Node, or `npm ci` was not run in tests/js")
    kit = KITS[name]
    async with (
        raw_upstream(ollama(REPLIES["whole chat"])) as there,
        caddy_before(tmp_path, there.url) as url,
        proxy_before(tmp_path, url) as proxy,
    ):
        with pytest.raises(kit.errors):
            await kit.whole(proxy.url, {})


@pytest.mark.skipif(CADDY is None, reason="there is no `caddy` on the PATH")
async def test_a_reader_of_responses_behind_a_real_caddy_sees_an_error(
    tmp_path: Path,
) -> None:
    async with (
        raw_upstream(ollama(REPLIES["responses"])) as there,
        caddy_before(tmp_path, there.url) as url,
        proxy_before(tmp_path, url) as proxy,
        openai.AsyncOpenAI(
            base_url=f"{proxy.url}/v1", api_key="x", max_retries=0
        ) as client,
    ):
        stream = await client.responses.create(model="tiny", input="hi", stream=True)
        with pytest.raises(openai.APIError, match="the instance was lost"):
            _ = [event async for event in stream]
