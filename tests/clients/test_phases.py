"""Each client while nothing runs, while it starts, when ready, and when it is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from ollama_proxy.simulator.server import Manners
from tests.clients.kits import KITS, NODE, Kit
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy

WAIT = {"Prefer": "wait=20"}
STALL = {"X-Simulator-Fault": "stall-after=3"}
RESET = {"X-Simulator-Fault": "reset-after=3"}
SLOW = {"X-Simulator-Fault": "delay=30"}
AT_ONCE_S = 1.0


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest) -> Kit:
    name: str = request.param
    if name == "ollama-js" and NODE is None:
        pytest.skip("there is no Node, or `npm ci` was not run in tests/js")
    return KITS[name]


@pytest.fixture
def backend() -> InProcessBackend:
    return InProcessBackend(Manners(load_s=0.05), boot_s=0.3)


@pytest.fixture
async def proxy(
    tmp_path: Path, backend: InProcessBackend
) -> AsyncIterator[RunningProxy]:
    """A proxy whose instance is not there yet."""
    async with running_proxy(tmp_path, backend=backend, OLLAMA_MODEL="tiny") as running:
        yield running


@pytest.fixture
async def ready(proxy: RunningProxy) -> RunningProxy:
    """A proxy whose instance is up."""
    await proxy.wake()
    return proxy


async def test_asleep_it_is_told_to_come_back(proxy: RunningProxy, kit: Kit) -> None:
    with pytest.raises(kit.errors, match=r"start.*please retry"):
        await kit.whole(proxy.url, {})

    assert proxy.state == "starting"


async def test_while_it_starts_it_is_told_how_far_that_is(
    proxy: RunningProxy, backend: InProcessBackend, kit: Kit
) -> None:
    backend.boot_s = 60.0
    await proxy.parts.pool.wake()
    with pytest.raises(kit.errors, match=r"is starting \(.+\), please retry"):
        async with aclosing(kit.stream(proxy.url, {})) as pieces:
            await anext(pieces)
    backend.boot_s = 0.0


async def test_from_cold_it_waits_if_it_said_so(proxy: RunningProxy, kit: Kit) -> None:
    said = "".join([piece async for piece in kit.stream(proxy.url, WAIT)])

    assert "simulator" in said


async def test_a_stream_says_what_a_whole_answer_says(
    ready: RunningProxy, kit: Kit
) -> None:
    said = "".join([piece async for piece in kit.stream(ready.url, {})])

    assert said == await kit.whole(ready.url, {})


async def test_a_stream_whose_instance_is_lost_is_no_success(
    ready: RunningProxy, kit: Kit
) -> None:
    async with aclosing(kit.stream(ready.url, RESET)) as pieces:
        await anext(pieces)
        with pytest.raises(kit.errors, match="the instance was lost"):
            await _exhaust(pieces)


async def _exhaust(pieces: AsyncIterator[str]) -> None:
    async for _ in pieces:
        pass


async def test_an_answer_whose_instance_is_lost_is_no_success(
    ready: RunningProxy, backend: InProcessBackend, kit: Kit
) -> None:
    asking = asyncio.ensure_future(kit.whole(ready.url, SLOW))
    await ready.until(lambda: backend.simulator.counters.in_flight == 1)
    await backend.preempt()

    with pytest.raises(kit.errors, match="instance"):
        await asking


async def test_a_stream_that_is_left_ends_at_the_instance(
    ready: RunningProxy, backend: InProcessBackend, kit: Kit
) -> None:
    async with aclosing(kit.stream(ready.url, STALL)) as pieces:
        await anext(pieces)
    counters = backend.simulator.counters
    await ready.until(lambda: counters.cancelled == 1, within_s=AT_ONCE_S)

    assert ready.parts.pool.in_flight == 0


async def test_a_whole_answer_that_is_left_ends_at_the_instance(
    ready: RunningProxy, backend: InProcessBackend, kit: Kit
) -> None:
    asking = asyncio.ensure_future(kit.whole(ready.url, SLOW))
    counters = backend.simulator.counters
    await ready.until(lambda: counters.in_flight == 1)
    asking.cancel()
    await ready.until(lambda: counters.cancelled == 1, within_s=AT_ONCE_S)

    assert ready.parts.pool.in_flight == 0


async def test_a_held_request_that_is_left_never_reaches_the_instance(
    proxy: RunningProxy, backend: InProcessBackend, kit: Kit
) -> None:
    backend.boot_s = 60.0
    asking = asyncio.ensure_future(kit.whole(proxy.url, WAIT))
    await proxy.until(lambda: proxy.parts.pool.waiting == 1)
    asking.cancel()
    await proxy.until(lambda: proxy.parts.pool.waiting == 0, within_s=AT_ONCE_S)
    backend.boot_s = 0.0
    await proxy.until(lambda: proxy.state == "ready")

    asked = backend.simulator.counters.requests
    assert not set(asked) & {"/api/chat", "/v1/chat/completions", "/v1/messages"}
