"""What goes on with a key ends with it: in its protocol's words, within two seconds."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.serving.hold_policy import HoldPolicy
from ollama_proxy.simulator.server import Manners
from tests.fakes.callers import Callers, bearer
from tests.fakes.endless_streams import EndlessStreams
from tests.fakes.instance import InProcessBackend
from tests.fakes.raw_upstream import RawUpstream, raw_upstream
from tests.proxy import RunningProxy, generate, running_proxy

WAYS = ["true", "false"]
"""Values of OLLAMA_PROXY_FAST_PATH: one for each way in."""

WITHIN_S = 2.0
LINE = AuditLine(0.0, "", "", "key rm")
RIGHTS = Rights(routes=frozenset(RouteClass))
CHAT = {"model": "m", "stream": True, "max_tokens": 9, "messages": []}

NDJSON = ("/api/chat", "application/x-ndjson", b'{"response":"#"}\n')
SSE = ("/v1/chat/completions", "text/event-stream", b'data: {"x":#}\n\n')
EVENTS = ("/v1/messages", "text/event-stream", b'event: ping\ndata: {"x":#}\n\n')


def callers() -> Callers:
    return Callers(x=RIGHTS, y=RIGHTS)


def end(proxy: RunningProxy, how: str = "removed") -> None:
    """Remove, disable or replace the key ``x``, as orders do."""
    keyring, key = proxy.parts.gateway.keyring, callers().keys["x"]
    keyring.put(key, LINE)
    if how == "removed":
        keyring.remove(key, LINE)
    elif how == "disabled":
        keyring.put(replace(key, is_disabled=True), LINE)
    else:
        keyring.put(replace(key, digest=b"another"), LINE)


def error_of(family: tuple[str, str, bytes], last: bytes) -> dict[str, Any]:
    """Return the error that ends a stream, as a client of its protocol reads it."""
    if family is NDJSON:
        told: dict[str, Any] = json.loads(last)
        return {"message": told["error"]}
    *names, data = last.strip().split(b"\n")
    assert names == ([b"event: error"] if family is EVENTS else [])
    error: dict[str, Any] = json.loads(data.removeprefix(b"data: "))["error"]
    return error


@contextlib.asynccontextmanager
async def relaying(
    upstream: RawUpstream, folder: Path, way: str
) -> AsyncIterator[RunningProxy]:
    """Run a proxy before a server that is there; it takes ``x`` and ``y``."""
    async with running_proxy(
        folder,
        backend=StaticBackend(upstream.url),
        identify=callers(),
        OLLAMA_PROXY_FAST_PATH=way,
    ) as proxy:
        await proxy.until(lambda: proxy.state == "ready")
        yield proxy


@contextlib.asynccontextmanager
async def streaming(
    folder: Path, way: str, script: EndlessStreams
) -> AsyncIterator[RunningProxy]:
    async with (
        raw_upstream(script) as upstream,
        relaying(upstream, folder, way) as proxy,
    ):
        yield proxy


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", [NDJSON, SSE, EVENTS], ids=lambda one: one[0])
@pytest.mark.parametrize("how", ["removed", "disabled", "replaced"])
async def test_a_stream_ends_with_the_reason_and_others_go_on_byte_for_byte(
    tmp_path: Path, way: str, family: tuple[str, str, bytes], how: str
) -> None:
    path, content_type, piece = family
    script = EndlessStreams(content_type, piece)
    async with streaming(tmp_path, way, script) as proxy:
        url, post = f"{proxy.url}{path}", proxy.session.post
        async with (
            post(url, json=CHAT, headers=bearer("x")) as ended,
            post(url, json=CHAT, headers=bearer("y")) as other,
        ):
            first = await ended.content.readuntil(piece[-1:])
            assert proxy.parts.pool.in_flight == 2
            end(proxy, how)
            async with asyncio.timeout(WITHIN_S):
                rest = first + await ended.read()
                await proxy.until(lambda: proxy.parts.pool.in_flight == 1)
                await proxy.until(lambda: script.open == 1)
            script.last = 60
            untouched = await other.read()
        async with post(url, json=CHAT, headers=bearer("y")) as later:
            assert later.status == 200  # nothing is left of the one that ended
            await later.read()

    assert untouched == script.body()
    separator = piece[-1:] if family is NDJSON else b"\n\n"
    *pieces, last = rest.removesuffix(separator).split(separator)
    assert script.body().startswith(separator.join(pieces) + separator)
    assert error_of(family, last)["message"] == f"the key 'x' was {how}"


@pytest.mark.parametrize("way", WAYS)
async def test_a_body_that_takes_no_words_is_reset(tmp_path: Path, way: str) -> None:
    framing = b"Content-Length: 1000000"
    script = EndlessStreams("application/json", b"#" * 9, framing=framing)
    async with streaming(tmp_path, way, script) as proxy:
        url = f"{proxy.url}/api/chat"
        async with proxy.session.post(url, json=CHAT, headers=bearer("x")) as ended:
            await ended.content.readany()
            end(proxy)
            async with asyncio.timeout(WITHIN_S):
                with pytest.raises(aiohttp.ClientError):
                    await ended.read()
                await proxy.until(lambda: proxy.parts.pool.in_flight == 0)
                await proxy.until(lambda: len(proxy.parts.active) == 0)


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_reads_nothing_does_not_delay_the_end(
    tmp_path: Path, way: str
) -> None:
    line = b'{"response":"#' + b"x" * 500_000 + b'"}\n'
    script = EndlessStreams("application/x-ndjson", line)
    async with streaming(tmp_path, way, script) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is one
        raw = json.dumps(CHAT)
        head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x"
        writer.write(f"{head}\r\nContent-Length: {len(raw)}\r\n\r\n{raw}".encode())
        await proxy.until(lambda: script.open == 1)
        await asyncio.sleep(0.5)  # the buffers in between are full by then
        end(proxy)
        async with asyncio.timeout(WITHIN_S):
            await proxy.until(lambda: proxy.parts.pool.in_flight == 0)
            await proxy.until(lambda: len(proxy.parts.active) == 0)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 20):
                pass
        writer.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "path", ["/api/chat", "/v1/chat/completions", "/v1/messages", "/api/show"]
)
async def test_a_held_request_gets_401_in_its_shape_and_others_are_held_on(
    tmp_path: Path, way: str, path: str
) -> None:
    backend = InProcessBackend(boot_s=1000.0)
    async with running_proxy(
        tmp_path,
        backend=backend,
        identify=callers(),
        hold=HoldPolicy(hold_s=600.0),
        OLLAMA_PROXY_FAST_PATH=way,
    ) as proxy:
        body = CHAT | {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
        url, post = f"{proxy.url}{path}", proxy.session.post
        asked = asyncio.ensure_future(post(url, json=body, headers=bearer("x")))
        native = f"{proxy.url}/api/generate"
        short = generate(stream=False)
        other = asyncio.ensure_future(post(native, json=short, headers=bearer("y")))
        await proxy.until(lambda: len(proxy.parts.active) == 2 or asked.done())
        is_held = not asked.done()  # what the catalogue answers waits for nothing
        if is_held:
            await proxy.until(lambda: proxy.parts.pool.waiting == 2)
            end(proxy)
        async with asyncio.timeout(WITHIN_S), await asked as reply:
            told = await reply.json()
        if is_held:
            assert proxy.parts.pool.waiting == 1
            assert reply.status == 401
            assert reply.headers["WWW-Authenticate"].startswith("Bearer")
            message = told["error"]
            if path.startswith("/v1"):
                message = message["message"]
            assert message == "the key 'x' was removed"
        backend.boot_s = 0.0
        async with await other as reply:
            assert reply.status == 200


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_a_held_stream_with_heartbeats_ends_with_the_reason(
    tmp_path: Path, path: str
) -> None:
    family = {one[0]: one for one in (NDJSON, SSE, EVENTS)}[path]
    backend = InProcessBackend(boot_s=1000.0)
    async with running_proxy(
        tmp_path,
        backend=backend,
        identify=callers(),
        hold=HoldPolicy(silent_s=0.05, beat_s=0.05),
    ) as proxy:
        body = CHAT | {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
        headers = bearer("x") | {"Prefer": "wait=99"}
        url = f"{proxy.url}{path}"
        async with proxy.session.post(url, json=body, headers=headers) as reply:
            await reply.content.readany()
            end(proxy)
            async with asyncio.timeout(WITHIN_S):
                rest = await reply.read()
        backend.boot_s = 0.0
        last = rest.strip() if family is NDJSON else rest.strip().split(b"\n\n")[-1]
        assert error_of(family, last)["message"] == "the key 'x' was removed"
        assert proxy.parts.pool.waiting == 0


async def test_an_upload_and_a_body_that_is_being_read_get_401(tmp_path: Path) -> None:
    async with running_proxy(
        tmp_path, backend=InProcessBackend(), identify=callers()
    ) as proxy:
        await proxy.wake()
        blob = f"/api/blobs/sha256:{'0' * 64}"
        for path, size in ((blob, 5 << 30), ("/api/chat", 9000)):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n"
            writer.write(f"{head}Content-Length: {size}\r\n\r\n{{".encode())
            await proxy.until(lambda: len(proxy.parts.active) == 1)
            await asyncio.sleep(0.05)
            end(proxy)
            async with asyncio.timeout(WITHIN_S):
                assert b" 401 " in await reader.readline()
                await reader.readuntil(b"the key 'x' was removed")
            writer.close()
            assert proxy.parts.pool.in_flight == 0


@pytest.mark.parametrize("joined_by", ["", "y"])
async def test_a_detached_pull_ends_unless_others_asked_for_it(
    tmp_path: Path, joined_by: str
) -> None:
    backend = InProcessBackend(Manners(pull_s=3.0))
    async with running_proxy(tmp_path, backend=backend, identify=callers()) as proxy:
        await proxy.wake()
        url, body = f"{proxy.url}/api/pull", {"model": "new"}
        for name in filter(None, ("x", joined_by)):  # who leaves, as a browser does
            async with proxy.session.post(url, json=body, headers=bearer(name)) as one:
                await one.content.readline()
        assert len(proxy.parts.pulls.under_way()) == 1
        end(proxy)
        await asyncio.sleep(0.2)
        if joined_by:
            assert len(proxy.parts.pulls.under_way()) == 1
            async with proxy.session.post(url, json=body, headers=bearer("y")) as one:
                assert (await one.read()).endswith(b'{"status":"success"}\n')
        else:
            assert proxy.parts.pulls.under_way() == []
            assert proxy.parts.pool.in_flight == 0


async def test_a_follower_of_a_pull_is_told_of_its_key(tmp_path: Path) -> None:
    backend = InProcessBackend(Manners(pull_s=60.0))
    async with running_proxy(tmp_path, backend=backend, identify=callers()) as proxy:
        await proxy.wake()
        url, body = f"{proxy.url}/api/pull", {"model": "new"}
        async with proxy.session.post(url, json=body, headers=bearer("x")) as one:
            await one.content.readline()
            end(proxy)
            async with asyncio.timeout(WITHIN_S):
                rest = await one.read()
        assert json.loads(rest.splitlines()[-1])["error"] == "the key 'x' was removed"
        await proxy.until(lambda: proxy.parts.pool.in_flight == 0)


async def test_an_answer_that_is_whole_at_once_gets_401(tmp_path: Path) -> None:
    backend = InProcessBackend(Manners(load_s=60.0))
    async with running_proxy(tmp_path, backend=backend, identify=callers()) as proxy:
        await proxy.wake()
        url, body = f"{proxy.url}/api/generate", generate(stream=False)
        post = proxy.session.post(url, json=body, headers=bearer("x"))
        asked = asyncio.ensure_future(post.__aenter__())
        await proxy.until(lambda: proxy.parts.pool.in_flight == 1)
        end(proxy)
        async with asyncio.timeout(WITHIN_S):
            reply = await asked
            assert reply.status == 401
            assert await reply.json() == {
                "error": "the key 'x' was removed",
                "status": "the key 'x' was removed",
            }
        assert proxy.parts.pool.in_flight == 0


BLOB = f"/api/blobs/sha256:{'0' * 64}"
SILENT = [
    ("POST", "/api/generate", generate()),
    ("POST", "/api/generate", generate(keep_alive=0, prompt="")),
    ("POST", "/api/chat", CHAT),
    ("POST", "/api/embed", {"model": "m", "input": "x"}),
    ("POST", "/v1/embeddings", {"model": "m", "input": "x"}),
    ("POST", "/v1/completions", {"model": "m", "prompt": "x"}),
    ("POST", "/v1/responses", {"model": "m", "input": "x"}),
    ("POST", "/v1/messages", CHAT),
    ("POST", "/api/show", {"model": "m"}),
    ("GET", "/v1/models/m", None),
    ("GET", "/api/ps", None),
    ("POST", "/api/create", {"model": "n", "from": "m"}),
    ("POST", "/api/copy", {"source": "m", "destination": "n"}),
    ("DELETE", "/api/delete", {"model": "m"}),
    ("POST", "/api/push", {"model": "m"}),
    ("POST", "/api/pull", {"model": "m"}),
    ("POST", "/api/pull", {"model": "m", "stream": False}),
    ("POST", BLOB, {}),
    ("HEAD", BLOB, None),
    ("POST", "/api/unheard-of", {"model": "m"}),
]


@pytest.mark.parametrize("way", WAYS)
async def test_whatever_waits_for_an_instance_that_is_silent_gets_401(
    tmp_path: Path, way: str
) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()  # until the proxy leaves

    async with (
        raw_upstream(silent) as upstream,
        relaying(upstream, tmp_path, way) as proxy,
    ):
        for method, path, body in SILENT:
            asked = asyncio.ensure_future(
                proxy.session.request(
                    method, f"{proxy.url}{path}", json=body, headers=bearer("x")
                )
            )
            before = len(upstream.heads)
            await proxy.until(lambda n=before: len(upstream.heads) > n)  # type: ignore[misc]
            end(proxy)
            async with asyncio.timeout(WITHIN_S), await asked as reply:
                told = await reply.text()
                assert reply.status == 401, (path, body)
                assert method == "HEAD" or "the key 'x' was removed" in told
            await proxy.until(lambda: proxy.parts.pool.in_flight == 0)
            await proxy.until(lambda: len(proxy.parts.active) == 0)
        assert proxy.parts.budget.taken == 0


async def test_a_wait_for_an_instance_that_wakes_none_gets_401(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, identify=callers()) as proxy:
        asked = asyncio.ensure_future(
            proxy.session.get(f"{proxy.url}/-/wait", headers=bearer("x"))
        )
        await proxy.until(lambda: len(proxy.parts.active) == 1)
        await asyncio.sleep(0.05)
        end(proxy)
        async with asyncio.timeout(WITHIN_S), await asked as reply:
            assert reply.status == 401
            assert await reply.json() == {
                "error": "the key 'x' was removed",
                "status": "the key 'x' was removed",
            }
