"""The same requests, straight to the upstream and through us: the same answers."""

import os
import re
import shutil
from pathlib import Path

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.server.machine_hosts import hosts_of_this_machine
from tests.fakes.instance import InProcessBackend
from tests.fakes.ollama import real_ollama
from tests.proxy import RunningProxy, running_proxy
from tests.recorded import Recorded, recorded
from tests.wire import Answer, send

# What differs from one answer of the very same server to the next.
CHANGING = [
    (rb'"created_at":"[^"]+"', b'"created_at":""'),
    (rb'"(created|created_at|completed_at)":\d+', b'"created":0'),
    (rb'"(total|load|eval|prompt_eval)_duration":\d+', b'"duration":0'),
    (rb'"(id|item_id|request_id)":"[^"]+"', b'"id":""'),
    (rb'"(expires_at|modified_at)":"[^"]+"', b'"at":""'),
]


def comparable(answer: Answer) -> dict[str, object]:
    """Return what must be equal: all but the date, and what no two answers share."""
    headers = sorted(
        (name, value)
        for name, value in answer.headers
        if name not in {"Date", "Content-Length"}
    )
    body = answer.body
    for pattern, constant in CHANGING:
        body = re.sub(pattern, constant, body)
    length = answer.header("Content-Length")
    return {
        "status": answer.status,
        "headers": headers,
        "framing": "chunked" if answer.chunks else "length" if length else "close",
        "body": body,
        "closed": answer.closed,
    }


async def differences(
    proxy: RunningProxy, port: int, requests: list[Recorded], *, close: bool
) -> list[str]:
    """Send each request both ways; return what differs, in words."""
    found = []
    for request in requests:
        raw = request.raw(close=close)
        first = await send(port, raw, method=request.method)
        second = await send(proxy.port, raw, method=request.method)
        if len(second.chunks or ()) < len(first.chunks or ()):
            found.append(f"{request.name}: chunks were merged")
        straight, through = comparable(first), comparable(second)
        found += [
            f"{request.name}: {key}: {straight[key]!r} became {through[key]!r}"
            for key in straight
            if straight[key] != through[key]
        ]
    return found


@pytest.mark.parametrize("is_gateway", [False, True])
@pytest.mark.parametrize("close", [False, True])
async def test_nobody_can_tell_us_from_the_simulator(
    tmp_path: Path, *, close: bool, is_gateway: bool
) -> None:
    backend = InProcessBackend(is_gateway=is_gateway)
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await proxy.wake()
        port = int(backend.url.rpartition(":")[2])

        assert len(recorded()) > 150
        assert await differences(proxy, port, recorded(), close=close) == []


@pytest.mark.real_ollama
@pytest.mark.skipif(shutil.which("ollama") is None, reason="there is no `ollama`")
@pytest.mark.skipif(
    not os.environ.get("REAL_OLLAMA_MODEL"), reason="REAL_OLLAMA_MODEL names no model"
)
@pytest.mark.parametrize("is_gateway", [False, True])
async def test_nobody_can_tell_us_from_a_real_ollama(
    tmp_path: Path, *, is_gateway: bool
) -> None:
    async with (
        real_ollama() as url,
        running_proxy(
            tmp_path,
            backend=StaticBackend(url, is_gateway=is_gateway),
            hosts=hosts_of_this_machine(),
        ) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        port = int(url.rpartition(":")[2])

        found = await differences(proxy, port, recorded(), close=False)
        assert not found, "\n".join(found)
