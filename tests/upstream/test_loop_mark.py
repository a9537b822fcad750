"""A request that comes back to the proxy goes no further, and wakes nothing."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.upstream.loop_mark import MOST_PROXIES, VIA, LoopMark
from tests.fakes.instance import InProcessBackend
from tests.fakes.raw_upstream import reply
from tests.proxy import (
    HAS_FAST_PATH,
    RunningProxy,
    generate,
    relaying_proxy,
    running_proxy,
)

ASKED = [
    ("/api/generate", {"model": "tiny", "prompt": "hi"}),
    ("/v1/chat/completions", {"model": "tiny", "messages": []}),
    ("/v1/messages", {"model": "tiny", "max_tokens": 9, "messages": []}),
]
OURS = LoopMark("ours")


def own_mark(proxy: RunningProxy) -> str:
    return LoopMark(proxy.store.owner_id).text


def post(path: str, body: bytes, *marks: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Connection: keep-alive"]
    lines += [f"Content-Length: {len(body)}", *(f"{VIA}: {mark}" for mark in marks)]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Way:
    """Passes bytes on to a port that is known only later: a gateway, say."""

    def __init__(self) -> None:
        self.to = 0
        self.url = ""
        self.connections = 0

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator["Way"]:
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self.to)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def way() -> AsyncIterator[Way]:
    async with Way().opened() as one:
        yield one


@pytest.mark.parametrize(("path", "body"), ASKED)
async def test_what_comes_back_is_refused_in_the_words_of_its_family(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async with running_proxy(tmp_path) as proxy:
        marked = {VIA: own_mark(proxy)}
        async with proxy.session.post(
            proxy.url + path, json=body, headers=marked
        ) as answer:
            told = await answer.json()

    assert answer.status == 508
    assert answer.headers["X-Ollama-Proxy"] == "loop"
    error = told["error"]
    message = error if isinstance(error, str) else error["message"]
    assert "has passed this proxy before" in message
    assert "OLLAMA_PROXY_UPSTREAM_URL" in message


async def test_it_wakes_nothing(tmp_path: Path) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        marked = {VIA: own_mark(proxy)}
        for path, body in ASKED:
            url = proxy.url + path
            async with proxy.session.post(url, json=body, headers=marked) as answer:
                assert answer.status == 508
        await asyncio.sleep(0.05)

        assert proxy.state == "cold"
        assert await backend.owned() == frozenset()


@pytest.mark.parametrize("target", ["/", "/api/version", "/api/tags", "/unheard/of"])
async def test_what_would_be_answered_from_memory_is_refused_as_well(
    tmp_path: Path, target: str
) -> None:
    async with running_proxy(tmp_path) as proxy:
        headers = {VIA: f"{OURS.text}, {own_mark(proxy)}"}
        async with proxy.session.get(proxy.url + target, headers=headers) as answer:
            assert answer.status == 508


async def test_the_proxys_own_pages_are_not(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        headers = {VIA: own_mark(proxy)}
        async with proxy.session.get(f"{proxy.url}/status", headers=headers) as answer:
            assert answer.status == 200


async def test_both_servers_refuse_it_with_the_same_bytes(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        whole = post("/api/generate", b"{}", own_mark(proxy))
        answers = []
        for cut in (len(whole), 9):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(whole[:cut])
            if cut < len(whole):
                await proxy.until(lambda: proxy.behind > 0)
                writer.write(whole[cut:])
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readuntil(b"}")
            answers.append((_undated(head), body))
            writer.close()

    assert answers[0] == answers[1]
    assert answers[0][0].startswith(b"HTTP/1.1 508 ")


def _undated(head: bytes) -> bytes:
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"Date:"))


async def _ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(2)
    writer.write(reply(b"{}"))


async def test_two_proxies_in_a_row_serve_and_each_leaves_its_mark(
    tmp_path: Path,
) -> None:
    async with relaying_proxy(tmp_path / "near", _ok) as (upstream, near):
        far_backend = StaticBackend(near.url)
        async with running_proxy(tmp_path / "far", backend=far_backend) as far:
            await far.until(lambda: far.state == "ready")
            reader, writer = await asyncio.open_connection("127.0.0.1", far.port)
            writer.write(post("/api/embed", b"{}"))
            head = await reader.readuntil(b"\r\n\r\n")
            was_behind = near.behind + far.behind
            owners = near.store.owner_id, far.store.owner_id
            marks = own_mark(far), own_mark(near)
            writer.close()

    seen = [line for line in upstream.heads[0].decode().split("\r\n") if VIA in line]
    assert head.startswith(b"HTTP/1.1 200 ")
    assert seen == [f"{VIA}: {mark}" for mark in marks]
    assert bool(was_behind) is not HAS_FAST_PATH
    assert not any(owner in upstream.heads[0].decode() for owner in owners)


async def test_a_client_cannot_have_the_mark_left_out(tmp_path: Path) -> None:
    async with relaying_proxy(tmp_path, _ok) as (upstream, proxy):
        headers = {"Connection": f"keep-alive, {VIA}"}
        url = f"{proxy.url}/api/embed"
        async with proxy.session.post(url, data=b"{}", headers=headers) as answer:
            assert answer.status == 200
        mark = own_mark(proxy)

    assert f"{VIA}: {mark}\r\n".encode() in upstream.heads[0]


async def test_a_proxy_whose_upstream_leads_back_says_so_and_asks_itself_seldom(
    tmp_path: Path,
) -> None:
    async with way() as back:
        backend = StaticBackend(back.url)
        async with running_proxy(tmp_path, backend=backend) as proxy:
            back.to = proxy.port
            controller = proxy.parts.pool.controllers[0]
            await proxy.until(lambda: controller.record.progress.needs_person)
            status = await proxy.status()
            url = f"{proxy.url}/api/generate"
            async with proxy.session.post(url, json=generate()) as answer:
                told = await answer.json()

    assert f"{back.url} leads back to this proxy itself" in status["error"]
    assert answer.status == 503
    assert "leads back to this proxy itself" in told["error"]
    assert back.connections < 10


async def test_two_proxies_that_lead_to_each_other_pass_a_request_on_once(
    tmp_path: Path,
) -> None:
    async with way() as back:
        first_backend = StaticBackend(back.url)
        async with running_proxy(tmp_path / "a", backend=first_backend) as first:
            back.to = first.port
            second_backend = StaticBackend(first.url)
            async with running_proxy(
                tmp_path / "b", backend=second_backend, OLLAMA_PROXY_HOLD="0"
            ) as second:
                back.to = second.port
                url = f"{first.url}/api/generate"
                statuses = []
                for _ in range(10):
                    async with first.session.post(url, json=generate()) as answer:
                        statuses.append(answer.status)
                        told = (await answer.json())["error"]
                    await asyncio.sleep(0.02)

    assert set(statuses) <= {503, 508}
    assert "lead" in told
    assert back.connections < 30


@pytest.mark.parametrize("count", [0, 1, MOST_PROXIES - 1])
def test_so_many_proxies_may_stand_in_a_row(count: int) -> None:
    marks = [LoopMark(f"owner {number}").text for number in range(count)]

    assert OURS.objection(marks) is None
    assert OURS.objection([",".join(marks)] if marks else []) is None


def test_more_may_not() -> None:
    marks = [LoopMark(f"owner {number}").text for number in range(MOST_PROXIES)]

    assert "has passed 8 proxies" in (OURS.objection(marks) or "")
    assert "has passed 8 proxies" in (OURS.objection([", ".join(marks)]) or "")


@pytest.mark.parametrize("marks", [["x" * 513], ["," * 513], ["x"] * 300])
def test_marks_that_are_none_are_bounded_too(marks: list[str]) -> None:
    assert OURS.objection(marks) is not None


def test_ones_own_mark_is_found_wherever_it_stands() -> None:
    for marks in ([OURS.text], ["a", OURS.text], [f"a ,{OURS.text}, b"]):
        assert "before" in (OURS.objection(marks) or "")
    assert OURS.objection([OURS.text[:-1]]) is None


def test_the_mark_is_the_same_after_a_restart_and_tells_no_owner() -> None:
    assert LoopMark("ours").text == OURS.text
    assert LoopMark("theirs").text != OURS.text
    assert "ours" not in json.dumps(dict(OURS.headers))
    assert OURS.line == f"{VIA}: {OURS.text}\r\n".encode()


async def test_an_upload_that_comes_back_is_refused_before_it_is_sent(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        digest = "sha256:" + "0" * 64
        head = (
            f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n"
            f"{VIA}: {own_mark(proxy)}\r\nContent-Length: 5000000000\r\n"
            "Expect: 100-continue\r\n\r\n"
        )
        answer = await proxy.raw(head.encode())

    assert answer.startswith(b"HTTP/1.1 508 ")
    assert b"100 Continue" not in answer


async def test_a_body_in_chunks_that_comes_back_is_refused_too(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        head = (
            f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n"
            f"{VIA}: {own_mark(proxy)}\r\nTransfer-Encoding: chunked\r\n"
            "Connection: close\r\n\r\n"
        )
        answer = await proxy.raw(head.encode() + b"2\r\n{}\r\n0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 508 ")
    assert b'"type":"error"' in answer
