"""Bytes in equal bytes out; a break is reported; work without a client ends."""

import asyncio
import hashlib
import io
import json
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.core.lifecycle.events import Lost
from ollama_proxy.fleet.backend import Backend
from ollama_proxy.serving.fleet_view import FleetView
from tests.fakes.instance import InProcessBackend
from tests.fakes.raw_upstream import Script, raw_upstream, reply
from tests.proxy import generate, lines, running_proxy

HEAD = b"POST /api/generate HTTP/1.1\r\nHost: x\r\n"
BODY = b'{"model":"tiny","prompt":"hi"}'
REQUEST = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY) + BODY


async def context(tmp_path: Path, script: Script, request: bytes = REQUEST) -> bytes:
    """Return what a client gets when the upstream does as ``script`` says."""
    async with (
        raw_upstream(script) as upstream,
        running_proxy(tmp_path, backend=StaticBackend(upstream.url)) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        return await proxy.raw(request)


def says(answer: bytes) -> Script:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        writer.write(answer)

    return script


async def test_a_chunked_answer_stays_chunked_and_adds_no_headers(
    tmp_path: Path,
) -> None:
    raw = await context(
        tmp_path,
        says(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
            b"Date: Sat, 21 Nov 2026 12:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n0\r\n\r\n"
        ),
    )
    head, _, body = raw.partition(b"\r\n\r\n")

    assert body == b"3\r\nabc\r\n0\r\n\r\n"
    assert set(head.splitlines()[1:]) == {
        b"Content-Type: application/x-ndjson",
        b"Date: Sat, 21 Nov 2026 12:00:00 GMT",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
    }


async def test_an_answer_without_a_type_gets_none(tmp_path: Path) -> None:
    raw = await context(tmp_path, says(reply(b"abc")))

    assert b"content-type" not in raw.lower()
    assert b"Content-Length: 3\r\n" in raw


async def test_hop_by_hop_headers_are_dropped_both_ways(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        writer.write(
            reply(
                b"ok",
                b"Connection: X-Inner, keep-alive",
                b"X-Inner: 1",
                b"Keep-Alive: timeout=5",
                b"X-Outer: 2",
            )
        )

    async with (
        raw_upstream(script) as upstream,
        running_proxy(tmp_path, backend=StaticBackend(upstream.url)) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        raw = await proxy.raw(
            HEAD + b"Connection: close, X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\n"
            b"Proxy-Authorization: secret\r\nAuthorization: Bearer t\r\nX-Kept: 3\r\n"
            b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
        )
        seen = upstream.heads

    assert b"X-Outer: 2" in raw
    assert b"X-Inner" not in raw
    assert b"Keep-Alive" not in raw
    assert b"X-Kept: 3" in seen[0]
    assert b"Authorization: Bearer t" in seen[0]
    for gone in (b"X-Mine", b"TE:", b"Proxy-Auth", b"Accept", b"User-Agent"):
        assert gone not in seen[0]


async def test_path_and_query_go_on_as_they_were_written(tmp_path: Path) -> None:
    target = b"/v1//models/../a%2Fb:c%20d?x=%7e&y=a+b&z"
    async with (
        raw_upstream(says(b"")) as upstream,
        running_proxy(tmp_path, backend=StaticBackend(upstream.url)) as proxy,
    ):

        async def script(
            _r: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(reply(b"ok"))

        upstream.script = script
        await proxy.until(lambda: proxy.state == "ready")
        raw = await proxy.raw(
            b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target
        )

    assert raw.startswith(b"HTTP/1.1 200 OK")
    assert upstream.heads[0].startswith(b"GET %s HTTP/1.1\r\n" % target)


async def test_redirects_are_handed_on(tmp_path: Path) -> None:
    raw = await context(
        tmp_path,
        says(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /api/generate\r\n"
            b"Content-Length: 0\r\n\r\n"
        ),
    )

    assert raw.startswith(b"HTTP/1.1 307 Temporary Redirect\r\n")
    assert b"Location: /api/generate\r\n" in raw


async def test_an_upstreams_own_503_passes_unchanged(tmp_path: Path) -> None:
    text = (
        b'{"error":"server busy, please try again.  maximum pending requests exceeded"}'
    )
    raw = await context(
        tmp_path,
        says(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n"
            % len(text)
            + text
        ),
    )

    assert raw.endswith(b"\r\n\r\n" + text)
    assert b"X-Ollama-Proxy" not in raw
    assert b"Retry-After" not in raw


async def test_a_compressed_answer_is_not_touched(tmp_path: Path) -> None:
    squeezed = bytes(range(256))
    raw = await context(tmp_path, says(reply(squeezed, b"Content-Encoding: gzip")))

    assert raw.endswith(b"\r\n\r\n" + squeezed)


async def test_a_compressed_request_is_not_touched(tmp_path: Path) -> None:
    got = bytearray()

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        got.extend(await reader.readexactly(6))
        writer.write(reply(b"ok"))

    await context(
        tmp_path,
        script,
        b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Encoding: zstd\r\nContent-Length: 6\r\n\r\n\x28\xb5\x2f\xfd\x00\x01",
    )

    assert bytes(got) == b"\x28\xb5\x2f\xfd\x00\x01"


async def test_a_stale_kept_connection_costs_one_retry_and_no_error(
    tmp_path: Path,
) -> None:
    served = 0

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal served
        await reader.readexactly(len(BODY))
        served += 1
        if served == 2:
            raise ConnectionResetError
        writer.write(reply(b"%d" % served))

    async with (
        raw_upstream(script) as upstream,
        running_proxy(tmp_path, backend=StaticBackend(upstream.url)) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        answers = [await proxy.raw(REQUEST) for _ in range(2)]

    assert answers[0].endswith(b"1")
    assert answers[1].endswith(b"3")
    assert served == 3


async def test_a_request_cut_off_on_a_fresh_connection_is_not_sent_again(
    tmp_path: Path,
) -> None:
    async def script(reader: asyncio.StreamReader, _w: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(BODY))
        raise ConnectionResetError

    async with (
        raw_upstream(script) as upstream,
        running_proxy(tmp_path, backend=StaticBackend(upstream.url)) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        raw = await proxy.raw(REQUEST)

    assert raw.startswith(b"HTTP/1.1 503 ")
    assert len(upstream.heads) == 1


@pytest.mark.parametrize("begun", [b'{"response":"a"}\n', b'{"respon'])
async def test_an_instance_lost_in_a_native_stream_leaves_an_error_line(
    tmp_path: Path, begun: bytes
) -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(begun), begun)
        )
        await writer.drain()
        await asyncio.sleep(0.05)
        raise ConnectionResetError

    raw = await context(tmp_path, script)

    assert b'{"error":"the instance was lost in the middle of the answer"}\n' in raw
    assert raw.endswith(b"0\r\n\r\n")


async def test_an_instance_lost_in_an_event_stream_leaves_an_error_event(
    tmp_path: Path,
) -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(2)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: {}\n\r\n"
        )
        await writer.drain()
        await asyncio.sleep(0.05)
        raise ConnectionResetError

    raw = await context(
        tmp_path,
        script,
        b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Length: 2\r\n\r\n{}",
    )

    assert b'event: error\ndata: {"type":"error"' in raw


async def test_an_instance_lost_in_a_measured_answer_resets_the_client(
    tmp_path: Path,
) -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        await asyncio.sleep(0.05)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await context(tmp_path, script)


async def _zeros(size: int) -> AsyncIterator[bytes]:
    block = bytes(1 << 20)
    for _ in range(size >> 20):
        yield block


async def test_an_upload_passes_in_constant_memory(tmp_path: Path) -> None:
    size = 256 << 20
    digest = hashlib.sha256()
    for _ in range(size >> 20):
        digest.update(bytes(1 << 20))
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await proxy.wake()
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with proxy.session.post(
            f"{proxy.url}/api/blobs/sha256:{digest.hexdigest()}", data=_zeros(size)
        ) as answer:
            assert answer.status == 201
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb

        assert backend.simulator.store.blobs == {f"sha256:{digest.hexdigest()}": size}
        assert grown_kb < 32 * 1024


async def test_a_blob_that_is_there_is_answered_before_it_is_sent(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await proxy.wake()
        backend.simulator.store.blobs["sha256:" + "0" * 64] = 1
        async with proxy.session.post(
            f"{proxy.url}/api/blobs/sha256:{'0' * 64}", data=_zeros(64 << 20)
        ) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("path", ["/api/generate", "/api/version"])
async def test_a_client_that_knows_no_chunks_gets_its_end_by_a_close(
    tmp_path: Path, path: str
) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        body = BODY if path == "/api/generate" else b""
        method = b"POST" if body else b"GET"
        raw = await proxy.raw(
            b"%s %s HTTP/1.0\r\nConnection: %s\r\nContent-Length: %d\r\n\r\n"
            % (method, path.encode(), b"keep-alive" if body else b"close", len(body))
            + body
        )

    assert raw.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"chunked" not in raw.lower()
    assert raw.endswith(b"}\n" if body else b"}")


async def test_a_header_of_nine_kilobytes_passes(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        async with proxy.session.post(
            f"{proxy.url}/api/generate",
            json=generate(stream=False),
            headers={"X-Long": "x" * 9000},
        ) as answer:
            assert answer.status == 200


async def test_a_body_that_stops_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await proxy.wake()
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n" + BODY)
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.1)

        assert proxy.parts.pool.in_flight == 0
        assert "/api/generate" not in backend.simulator.counters.requests


async def test_malformed_json_gets_the_instances_own_words_when_it_is_up(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        async with proxy.session.post(
            f"{proxy.url}/api/generate", data=b'{"model":'
        ) as answer:
            assert answer.status == 400
            assert await answer.json() == {"error": "unexpected EOF"}
            assert "X-Ollama-Proxy" not in answer.headers


@pytest.mark.parametrize("fault", ["end-after=2", "error-after=2"])
async def test_what_the_instance_says_is_not_repaired(
    tmp_path: Path, fault: str
) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        async with proxy.session.post(
            f"{proxy.url}/api/generate",
            json=generate(),
            headers={"X-Simulator-Fault": fault},
        ) as answer:
            said = lines(await answer.read())

    assert len(said) == (2 if fault.startswith("end") else 3)
    assert ("error" in said[-1]) == fault.startswith("error")


async def test_a_client_that_sends_nothing_more_does_not_keep_the_instance(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_STALL_TIMEOUT="0.2s") as proxy:
        await proxy.wake()
        with pytest.raises(ConnectionResetError):
            await proxy.raw(
                b"POST /api/blobs/sha256:%s HTTP/1.1\r\nHost: x\r\n" % (b"0" * 64)
                + b"Content-Length: 9999999\r\n\r\nonly this"
            )

        await proxy.until(lambda: proxy.parts.pool.in_flight == 0)


async def test_a_client_that_takes_nothing_does_not_keep_the_instance(
    tmp_path: Path,
) -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        for _ in range(99):
            writer.write(bytes(1_000_000))
            await writer.drain()

    async with (
        raw_upstream(script) as upstream,
        running_proxy(
            tmp_path,
            backend=StaticBackend(upstream.url),
            OLLAMA_PROXY_STALL_TIMEOUT="0.3s",
        ) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=1024)
        writer.write(REQUEST)
        await proxy.until(lambda: proxy.parts.pool.in_flight == 1)

        await proxy.until(lambda: proxy.parts.pool.in_flight == 0, within_s=3.0)
        writer.transport.abort()


async def test_a_machine_that_vanished_without_a_word_frees_its_clients(
    tmp_path: Path,
) -> None:
    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(len(BODY))
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n"
        )
        await writer.drain()
        await asyncio.sleep(60)

    async with (
        raw_upstream(script) as upstream,
        running_proxy(tmp_path, backend=StaticBackend(upstream.url)) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(REQUEST)
        async with asyncio.timeout(5):
            await reader.readuntil(b"{}\n")
            controller = proxy.parts.pool.controllers[0]
            assert controller.record.launch_id is not None
            controller.apply(Lost(controller.record.launch_id, "no route to host"))
            told = await reader.readuntil(b"}\n")
        writer.close()

    assert b"the instance was lost in the middle of the answer" in told


async def test_a_read_of_an_instance_that_says_nothing_is_answered_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FleetView, "read_limit_s", 0.2)

    async def script(_r: asyncio.StreamReader, _w: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with (
        raw_upstream(script) as upstream,
        running_proxy(tmp_path, backend=StaticBackend(upstream.url)) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        async with proxy.session.get(f"{proxy.url}/api/ps") as answer:
            assert (answer.status, await answer.json()) == (200, {"models": []})
            assert answer.headers["X-Ollama-Proxy"] == "asleep"


async def test_a_very_long_line_passes_whole(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        texts = [f"text {n}" for n in range(20_000)]
        body = json.dumps({"model": "tiny", "input": texts}).encode()
        async with proxy.session.post(
            f"{proxy.url}/api/embed", data=io.BytesIO(body)
        ) as answer:
            raw = await answer.read()

    assert len(raw) > 6 << 20
    assert len(json.loads(raw)["embeddings"]) == 20_000


def test_the_static_backend_is_a_backend() -> None:
    backend: Backend = StaticBackend("http://127.0.0.1:1")

    assert backend.traits.externally_managed
