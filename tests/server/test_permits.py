"""Every request of a key is admitted once and ends once, on both ways in."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ollama_proxy.core.access.keys import Rights
from ollama_proxy.simulator.server import Manners
from tests.fakes.callers import WAYS, Callers, bearer, by_way
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, generate, running_proxy

ANSWER = {"stream": False, "options": {"num_predict": 5}}
MOST = 4
CALLERS = Callers(
    ci=Rights(rpm=MOST, parallel=MOST, tokens_per_day=100_000),
    quick=Rights(parallel=1000, tokens_per_day=1_000_000),
)


@pytest.fixture
def backend() -> InProcessBackend:
    return InProcessBackend(Manners())


@pytest.fixture
async def proxy(
    tmp_path: Path, backend: InProcessBackend
) -> AsyncIterator[RunningProxy]:
    """A proxy whose key ``ci`` may send four requests at once, and four a minute."""
    async with running_proxy(tmp_path, backend=backend, identify=CALLERS) as running:
        yield running


async def ask(proxy: RunningProxy, body: Any, **fields: str) -> int:
    url = f"{proxy.url}/api/generate"
    async with proxy.session.post(url, json=body, headers=fields) as answer:
        with contextlib.suppress(aiohttp.ClientError):
            await answer.read()
        return answer.status


async def settled(proxy: RunningProxy, name: str = "ci") -> int:
    """Wait until nothing of a key is in progress; return its tokens today."""
    limits, key = proxy.parts.gateway.limits, CALLERS.keys[name]
    await proxy.until(lambda: limits.in_flight(key.id) == 0)
    return proxy.tokens_of(key)


@WAYS
async def test_an_answer_counts_once(proxy: RunningProxy, way: str) -> None:
    await proxy.wake()
    statuses = [await ask(proxy, generate(**ANSWER), **by_way(way)) for _ in range(5)]
    one = await settled(proxy)

    assert statuses == [200] * MOST + [429]
    assert 5 * MOST <= one < 100


@WAYS
async def test_a_request_that_is_handed_over_counts_once(
    proxy: RunningProxy, way: str
) -> None:
    """An unload is no use, so the fast path leaves it to aiohttp."""
    await proxy.wake()
    unload = {"model": "tiny", "keep_alive": 0}
    statuses = [await ask(proxy, unload, **by_way(way)) for _ in range(5)]
    await settled(proxy)

    assert statuses == [200] * MOST + [429]


@WAYS
async def test_a_request_without_an_instance_counts_no_tokens(
    proxy: RunningProxy, backend: InProcessBackend, way: str
) -> None:
    backend.boot_s = 30.0
    statuses = [await ask(proxy, generate(), **by_way(way)) for _ in range(5)]

    assert statuses == [503] * MOST + [429]
    assert await settled(proxy) == 0
    backend.boot_s = 0.0


@WAYS
@pytest.mark.parametrize(
    "fault", ["reset-after=2", "end-after=2", "error-after=2", "status=500"]
)
async def test_a_broken_answer_frees_its_place(
    proxy: RunningProxy, way: str, fault: str
) -> None:
    await proxy.wake()
    fields = by_way(way, **{"X-Simulator-Fault": fault})
    for _ in range(MOST):
        with contextlib.suppress(aiohttp.ClientError):
            await ask(proxy, generate(), **fields)

    assert await settled(proxy) < 100


@WAYS
async def test_a_lost_instance_frees_every_place(
    proxy: RunningProxy, backend: InProcessBackend, way: str
) -> None:
    backend.manners.rate = 2.0
    await proxy.wake()
    asking = [
        asyncio.ensure_future(ask(proxy, generate(), **by_way(way))) for _ in range(3)
    ]
    await proxy.until(lambda: backend.simulator.counters.working == 3)
    proxy.parts.pool.stop()
    await proxy.until(lambda: proxy.state == "cold")
    await asyncio.gather(*asking, return_exceptions=True)

    await settled(proxy)


@WAYS
async def test_a_held_request_that_gets_nothing_frees_its_place(
    proxy: RunningProxy, backend: InProcessBackend, way: str
) -> None:
    backend.boot_s = 30.0
    status = await ask(proxy, generate(), **by_way(way, Prefer="wait=1"))

    assert status == 503
    assert await settled(proxy) == 0
    backend.boot_s = 0.0


@pytest.mark.parametrize("pause_s", [0.0, 0.001])
async def test_a_client_that_leaves_at_once_leaves_no_permit(
    proxy: RunningProxy, pause_s: float
) -> None:
    await proxy.wake()
    body = json.dumps(generate()).encode()
    head = b"POST /api/generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer quick\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    for _ in range(30):
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(head + length + body)
        await asyncio.sleep(pause_s)
        writer.transport.abort()
    await asyncio.sleep(0.05)

    await settled(proxy, "quick")


@WAYS
async def test_where_bodies_have_no_room_nothing_stays_admitted(
    tmp_path: Path, way: str
) -> None:
    async with running_proxy(
        tmp_path,
        identify=Callers(ci=Rights(parallel=MOST), quick=Rights(tokens_per_day=1000)),
        OLLAMA_PROXY_MAX_WAITING_BYTES="1",
    ) as proxy:
        await proxy.wake()
        many = [await ask(proxy, generate(), **by_way(way)) for _ in range(2 * MOST)]
        fields = {**by_way(way), **bearer("quick")}
        judged = [await ask(proxy, generate(), **fields) for _ in range(2 * MOST)]
        await settled(proxy)

        assert set(many) == {200}
        assert set(judged) == {503}  # its body would have to be read as a whole
        assert await settled(proxy, "quick") == 0
