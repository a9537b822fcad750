"""Malformed requests with secrets in every part: none in the log, none in an answer."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.base import log
from ollama_proxy.core import dispatch
from ollama_proxy.server.aiohttp.dispatcher import Dispatcher
from tests.fakes.instance import InProcessBackend
from tests.malformed_requests import BODY, FIRST, KEY, MALFORMED, SECRET
from tests.proxy import RunningProxy, running_proxy


@pytest.fixture
def told() -> io.StringIO:
    stream = io.StringIO()
    log.configure("debug", stream)
    return stream


async def answer_to(port: int, request: bytes) -> bytes:
    """Return all that comes back, until it is closed or silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    came = b""
    try:
        writer.write(request)
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(0.3) as limit:
                while part := await reader.read(1 << 16):
                    came += part
                    limit.reschedule(asyncio.get_running_loop().time() + 0.3)
    finally:
        writer.close()
    return came


@pytest.fixture(params=["asleep", "ready"])
async def proxy(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[RunningProxy]:
    is_ready = request.param == "ready"
    backend = InProcessBackend() if is_ready else StaticBackend("http://127.0.0.1:1")
    async with running_proxy(tmp_path, backend=backend) as running:
        if is_ready:
            await running.wake()
        yield running


@pytest.mark.parametrize("first", [b"", b"Accept: a", b"Prefer: b"])
async def test_no_secret_of_a_malformed_request_is_told(
    told: io.StringIO, proxy: RunningProxy, first: bytes
) -> None:
    found = []
    for name, request in MALFORMED.items():
        before = told.tell()
        answer = await answer_to(
            proxy.port, (FIRST % first if first else b"") + request
        )
        if b"\r\nServer:" in answer:
            found.append(f"{name}: {answer!r}")
        is_told_to_its_client = b"HTTP/1.1 30" in answer or b"model" in answer
        if SECRET in answer and not is_told_to_its_client:
            found.append(f"{name}: {answer!r}")
        logged = told.getvalue()[before:]
        found += [line for line in logged.splitlines() if not line.startswith("{")]
        if SECRET.decode() in logged or "library.warned" in logged:
            found.append(f"{name}: {logged}")

    assert not found, "\n".join(found)
    assert all(json.loads(line)["event"] for line in told.getvalue().splitlines())


async def test_a_failure_before_any_handler_is_told_without_words(
    told: io.StringIO, proxy: RunningProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_dispatcher: Dispatcher, request: web.Request) -> None:
        raise ValueError(request.headers["Authorization"])

    monkeypatch.setattr(Dispatcher, "resolve", fail)
    asked = (
        b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\nPrefer: x\r\n%b\r\n\r\n" % KEY
    )
    answer = await answer_to(proxy.port, asked)

    assert b" 500 " in answer
    assert b"Traceback" not in answer
    assert SECRET not in answer
    assert SECRET.decode() not in told.getvalue()
    (line,) = [
        json.loads(one) for one in told.getvalue().splitlines() if "aiohttp" in one
    ]
    assert (line["event"], line["error"]) == ("library.warned", "ValueError")


@pytest.mark.parametrize("field", [b"Accept: x", b"Prefer: x"])
async def test_a_fault_of_ours_is_told_without_the_words_of_the_exception(
    told: io.StringIO,
    proxy: RunningProxy,
    monkeypatch: pytest.MonkeyPatch,
    field: bytes,
) -> None:
    def fail(*_args: object) -> None:
        raise ValueError(SECRET.decode())

    monkeypatch.setattr(dispatch, "_of_use", fail)
    head = [b"POST /api/generate HTTP/1.1", b"Host: localhost", field, KEY]
    length = b"Content-Length: %d" % len(BODY)
    answer = await answer_to(proxy.port, b"\r\n".join([*head, length, b"", BODY]))

    assert b" 500 " in answer
    assert SECRET not in answer
    assert SECRET.decode() not in told.getvalue()
    assert '"event":"request.failed"' in told.getvalue()
