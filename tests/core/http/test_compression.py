"""Bodies that are compressed, and those that must not be."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import web
from multidict import CIMultiDict
from pytest_aiohttp.plugin import AiohttpServer

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.core.http.compression import (
    Unpacker,
    UnreadableBodyError,
    encoding_of,
    without_body_facts,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Observation, Phase
from ollama_proxy.serving.hold_policy import HoldPolicy
from tests.proxy import RunningProxy, lines, running_proxy

ASKS_FOR_GZIP = {"Accept-Encoding": "br, gzip"}
PROGRESS = (
    b'{"status":"pulling manifest"}\n',
    b'{"status":"pulling ab","total":10,"completed":5}\n',
    b'{"status":"success"}\n',
)


def bare_deflate(data: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(data) + packing.flush()


@dataclass(slots=True)
class Gateway:
    """A server of one model behind a gateway that compresses what it can.

    ``obeys``: it honours ``Accept-Encoding``; else it compresses anyway. ``pack``: how.
    """

    obeys: bool
    encoding: str = "gzip"
    pack: Callable[[bytes], bytes] = gzip.compress
    pause_s: float = 0.0
    breaks: bool = False
    is_down: bool = False
    url: str = ""
    asked: list[tuple[str, CIMultiDict[str], bytes]] = field(default_factory=list)

    def of(self, path: str) -> list[tuple[CIMultiDict[str], bytes]]:
        """Return headers and bodies of the requests on one path."""
        return [(fields, body) for at, fields, body in self.asked if at == path]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.is_down:
            assert request.transport is not None
            request.transport.abort()
        body = await request.read()
        self.asked.append((request.path, CIMultiDict(request.headers), body))
        packs = not self.obeys or "gzip" in request.headers.get("Accept-Encoding", "")
        packed = {"Content-Encoding": self.encoding} if packs else {}
        kind = {"Content-Type": "application/x-ndjson"}
        stale = {"ETag": '"one"', "Content-Digest": "sha-256=:AA==:", "Digest": "x"}
        data = self.bodies(request.path)
        if data is not None:
            packed_data = self.pack(data) if packs else data
            kind["Content-Type"] = "application/json"
            return web.Response(body=packed_data, headers=packed | kind)
        response = web.StreamResponse(headers=packed | kind | stale)
        await response.prepare(request)
        if self.breaks:
            await response.write(self.pack(PROGRESS[0]))
            await asyncio.sleep(0.02)
            assert request.transport is not None
            request.transport.abort()
            return response
        if packs:
            await response.write(self.pack(b"".join(PROGRESS)))
            return response
        for line in PROGRESS:
            await response.write(line)
            await asyncio.sleep(self.pause_s)
        return response

    def bodies(self, path: str) -> bytes | None:
        names = {"name": "tiny:latest", "model": "tiny:latest", "size": 7}
        known = {
            "/api/version": {"version": "0.33.0"},
            "/api/tags": {"models": [names]},
            "/api/show": {"license": "ours", "details": {}},
            "/api/generate": {"model": "tiny", "done": True},
        }
        return json.dumps(known[path]).encode() if path in known else None


class LateBackend(StaticBackend):
    """Starts its server only when the test sets it up."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.is_up = False
        self.traits = replace(self.traits, poll_s=0.02)

    async def inspect(self, launch_id: LaunchId) -> Observation:
        seen = await super().inspect(launch_id)
        return seen if self.is_up else Observation(Phase.PENDING)


@pytest.fixture
def serve(aiohttp_server: AiohttpServer) -> "Serve":
    async def start(gateway: Gateway) -> Gateway:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", gateway.answer)
        server = await aiohttp_server(app, auto_decompress=False, shutdown_timeout=0.1)
        gateway.url = str(server.make_url("")).rstrip("/")
        return gateway

    return start


Serve = Callable[[Gateway], Awaitable[Gateway]]


def before(
    gateway: Gateway, folder: Path, models: str = ""
) -> AbstractAsyncContextManager[RunningProxy]:
    backend = StaticBackend(gateway.url)
    return running_proxy(folder, backend=backend, OLLAMA_MODEL=models)


async def ready(proxy: RunningProxy) -> None:
    await proxy.until(lambda: proxy.state == "ready")


async def pull(
    proxy: RunningProxy,
    *,
    encoding: str = "gzip",
    path: str = "/api/pull",
    **more: object,
) -> tuple[int, CIMultiDict[str], bytes]:
    async with proxy.session.post(
        proxy.url + path,
        json={"model": "new", **more},
        headers={"Accept-Encoding": encoding},
    ) as answer:
        return answer.status, CIMultiDict(answer.headers), await answer.read()


async def test_a_pull_of_ours_is_asked_for_in_the_clear_and_shared(
    tmp_path: Path, serve: Serve
) -> None:
    gateway = await serve(Gateway(obeys=True, pause_s=0.1))
    async with before(gateway, tmp_path) as proxy:
        await ready(proxy)
        (_, first_head, first), (_, second_head, second) = await asyncio.gather(
            pull(proxy), pull(proxy, encoding="identity;q=1, *;q=0")
        )
        (fields, _), *more = gateway.of("/api/pull")

        assert fields.getall("Accept-Encoding") == ["identity"]
        assert more == []
        assert first == b"".join(PROGRESS)
        assert lines(second)[-1] == {"status": "success"}
        assert "Content-Encoding" not in {**first_head, **second_head}


@pytest.mark.parametrize("stream", [True, False, None])
async def test_a_compressed_pull_passes_to_each_client_as_it_came(
    tmp_path: Path, serve: Serve, *, stream: bool | None
) -> None:
    gateway = await serve(Gateway(obeys=False))
    async with before(gateway, tmp_path) as proxy:
        await ready(proxy)
        told = await asyncio.gather(*(pull(proxy, stream=stream) for _ in range(3)))
        *_, (fields, body) = gateway.of("/api/pull")

        for status, head, packed in told:
            assert (status, head["Content-Encoding"]) == (200, "gzip")
            assert head["ETag"] == '"one"'
            assert gzip.decompress(packed) == b"".join(PROGRESS)
        assert fields["Accept-Encoding"] == "gzip"
        assert json.loads(body) == {"model": "new", "stream": stream}
        assert proxy.parts.pool.in_flight == 0


async def test_an_answer_made_anew_says_nothing_of_the_old_body(
    tmp_path: Path, serve: Serve
) -> None:
    gateway = await serve(Gateway(obeys=True, pause_s=0.1))
    async with before(gateway, tmp_path) as proxy:
        await ready(proxy)
        first = asyncio.ensure_future(pull(proxy))
        await proxy.until(lambda: bool(gateway.of("/api/pull")))
        (_, whole, body), (_, joined, _) = await asyncio.gather(
            pull(proxy, stream=False), pull(proxy)
        )
        _, as_it_came, _ = await first

        assert (body, whole["Content-Length"]) == (b'{"status":"success"}', "20")
        for name in ("ETag", "Content-Digest", "Digest"):
            assert name in as_it_came
            assert name not in whole
            assert name not in joined


async def test_a_request_made_anew_says_nothing_of_the_old_body(
    tmp_path: Path, serve: Serve
) -> None:
    gateway = await serve(Gateway(obeys=True))
    async with before(gateway, tmp_path) as proxy:
        await ready(proxy)
        for stream in (False, True):
            async with proxy.session.post(
                f"{proxy.url}/api/pull",
                json={"model": "new", "stream": stream},
                headers={"Content-Digest": "sha-256=:AA==:"},
            ) as answer:
                await answer.read()
        (anew, body), (same, _) = gateway.of("/api/pull")

        assert json.loads(body) == {"model": "new", "stream": True}
        assert int(anew["Content-Length"]) == len(body)
        assert "Content-Digest" not in anew
        assert "Content-Digest" in same


@pytest.mark.parametrize("path", ["/api/pull", "/api/create", "/api/delete"])
async def test_a_compressed_request_is_relayed_unseen(
    tmp_path: Path, serve: Serve, path: str
) -> None:
    gateway = await serve(Gateway(obeys=True))
    packed = gzip.compress(b'{"model":"new","stream":false}')
    async with before(gateway, tmp_path) as proxy:
        await ready(proxy)
        async with proxy.session.request(
            "DELETE" if path == "/api/delete" else "POST",
            proxy.url + path,
            data=packed,
            headers={"Content-Encoding": "gzip", "Accept-Encoding": "identity"},
        ) as answer:
            body = await answer.read()
        ((fields, sent),) = gateway.of(path)

        assert (sent, fields["Content-Encoding"]) == (packed, "gzip")
        assert body == b"".join(PROGRESS)
        assert proxy.store.sticky_models() == []


@pytest.mark.parametrize(("obeys", "noted"), [(True, ["new:latest"]), (False, [])])
async def test_what_a_create_did_is_read_where_it_is_in_the_clear(
    tmp_path: Path, serve: Serve, *, obeys: bool, noted: list[str]
) -> None:
    gateway = await serve(Gateway(obeys=obeys))
    async with before(gateway, tmp_path) as proxy:
        await ready(proxy)
        _, head, body = await pull(proxy, path="/api/create")
        plain = gzip.decompress(body) if "Content-Encoding" in head else body

        assert plain == b"".join(PROGRESS)
        assert [model.name for model in proxy.store.sticky_models()] == noted


@pytest.mark.parametrize("obeys", [True, False])
async def test_no_compressed_bytes_follow_heartbeats(
    tmp_path: Path, serve: Serve, *, obeys: bool
) -> None:
    gateway = await serve(Gateway(obeys=obeys))
    hold = HoldPolicy(max_hold_s=10, silent_s=0.05, beat_s=0.05)
    backend = LateBackend(gateway.url)
    async with running_proxy(tmp_path, backend=backend, hold=hold) as proxy:
        asking = asyncio.ensure_future(
            proxy.session.post(
                f"{proxy.url}/api/generate",
                json={"model": "tiny", "prompt": "hi"},
                headers={"Prefer": "wait=9", **ASKS_FOR_GZIP},
            )
        )
        answer = await asking
        backend.is_up = True
        body = await answer.read()

        assert "Content-Encoding" not in answer.headers
        if obeys:
            assert lines(body) == [{"model": "tiny", "done": True}]
        else:
            (told,) = lines(body)
            assert "is compressed (gzip)" in told["error"]


async def test_a_compressed_stream_that_breaks_is_reset_and_not_told_of(
    tmp_path: Path, serve: Serve
) -> None:
    gateway = await serve(Gateway(obeys=False, breaks=True))
    async with before(gateway, tmp_path) as proxy:
        await ready(proxy)
        raw = proxy.raw(
            b"POST /api/push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n"
            b'Accept-Encoding: gzip\r\n\r\n{"model":"new"}'
        )
        with pytest.raises(ConnectionResetError):
            await raw


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", bare_deflate),
    ],
)
async def test_a_server_whose_gateway_compresses_everything_is_understood(
    tmp_path: Path, serve: Serve, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    gateway = await serve(Gateway(obeys=False, encoding=encoding, pack=pack))
    async with before(gateway, tmp_path, "new") as proxy:
        await ready(proxy)
        await proxy.until(lambda: proxy.catalogued is not None)
        asked = {fields["Accept-Encoding"] for _, fields, _ in gateway.asked}

    assert asked == {"identity"}


async def test_what_is_told_asleep_is_not_compressed(
    tmp_path: Path, serve: Serve
) -> None:
    gateway = await serve(Gateway(obeys=False))
    async with before(gateway, tmp_path) as proxy:
        await ready(proxy)
        await proxy.until(lambda: proxy.catalogued is not None)
    gateway.is_down = True
    async with before(gateway, tmp_path) as proxy:
        for method, path in (("GET", "/api/tags"), ("POST", "/api/show")):
            async with proxy.session.request(
                method,
                proxy.url + path,
                json={"model": "tiny"},
                headers=ASKS_FOR_GZIP,
            ) as answer:
                body = await answer.read()

            assert "Content-Encoding" not in answer.headers
            assert body == gateway.bodies(path)


@pytest.mark.parametrize("encoding", ["br", "zstd", "snappy", "gzip, br"])
async def test_an_answer_that_can_not_be_unpacked_is_a_named_fault(
    tmp_path: Path, serve: Serve, encoding: str
) -> None:
    gateway = await serve(Gateway(obeys=False, encoding=encoding))
    async with before(gateway, tmp_path) as proxy:
        seen: list[str] = []

        async def told() -> bool:
            seen.append(str((await proxy.status())["error"]))
            return (
                f"/api/version can't be read: the answer is compressed ({encoding})"
                in seen[-1]
            )

        async with asyncio.timeout(5):
            while not await told():
                await asyncio.sleep(0.02)


async def test_such_an_answer_ends_no_launch_for_it_may_heal(
    tmp_path: Path, serve: Serve
) -> None:
    gateway = await serve(Gateway(obeys=False, encoding="br"))
    async with before(gateway, tmp_path) as proxy:
        await proxy.until(lambda: len(gateway.of("/api/version")) > 1)
        launch_id = proxy.parts.pool.controllers[0].record.launch_id
        gateway.obeys = True
        await ready(proxy)

        assert proxy.parts.pool.controllers[0].record.launch_id == launch_id


@pytest.mark.parametrize(
    ("values", "encoding"),
    [
        ([], ""),
        (["identity"], ""),
        (["GZip"], "gzip"),
        (["gzip, br"], "gzip, br"),
        (["identity", "zstd"], "zstd"),
        ([""], ""),
    ],
)
def test_how_a_body_is_compressed(values: list[str], encoding: str) -> None:
    fields = CIMultiDict([("content-encoding", value) for value in values])

    assert encoding_of(fields) == encoding


def test_facts_of_one_body_are_left_out_in_any_case() -> None:
    fields = CIMultiDict([("etag", "1"), ("X", "2"), ("CONTENT-MD5", "3"), ("x", "4")])

    assert list(without_body_facts(fields).items()) == [("X", "2"), ("x", "4")]


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_a_body_is_unpacked_in_whatever_pieces_it_comes(size: int) -> None:
    body = bytes(range(256)) * 50
    packed = gzip.compress(body)
    unpacker = Unpacker("gzip")
    pieces: list[bytes] = []
    for at in range(0, len(packed), size):
        pieces += unpacker.feed(packed[at : at + size])
    unpacker.end()

    assert b"".join(pieces) == body


def test_a_small_body_that_holds_much_is_unpacked_in_parts() -> None:
    packed = zlib.compress(bytes(64 * 1024 * 1024), 9)
    pieces = [len(piece) for piece in Unpacker("deflate").feed(packed)]

    assert sum(pieces) == 64 * 1024 * 1024
    assert max(pieces) <= 1024 * 1024


def test_a_body_that_is_cut_or_broken_is_no_body() -> None:
    packed = gzip.compress(b"some words")
    cut = Unpacker("gzip")
    list(cut.feed(packed[:-9]))

    with pytest.raises(UnreadableBodyError, match="ends in its middle"):
        cut.end()
    with pytest.raises(UnreadableBodyError, match="can't be unpacked"):
        list(Unpacker("gzip").feed(b"some words"))
