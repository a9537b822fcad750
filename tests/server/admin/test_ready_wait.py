"""``/-/wait``: told when an instance is ready, without waking one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.base.tasks import start_task
from ollama_proxy.serving.ready_watch import ReadyWatch, TooManyWatchersError
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy


async def wait(proxy: RunningProxy, query: str = "") -> tuple[int, Any]:
    async with proxy.session.get(f"{proxy.url}/-/wait{query}") as reply:
        return reply.status, await reply.json()


async def test_it_ends_when_an_instance_is_ready(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        waits = [start_task(wait(proxy)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in waits)
        await proxy.wake()
        told = await asyncio.gather(*waits)
        assert told == [(200, {"ready": True, "pool": "default"})] * 3
        assert await wait(proxy, "?pool=default&timeout=0") == told[0]


async def test_it_ends_with_its_time_and_wakes_nothing(tmp_path: Path) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        status, told = await wait(proxy, "?timeout=0.05s")
        assert (status, told["ready"]) == (503, False)
        assert "within 0.05 s" in told["error"]
        assert (backend.launches, proxy.state) == (0, "cold")


async def test_it_does_not_keep_an_instance(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        used = proxy.parts.pool.controllers[0].record.last_used
        await wait(proxy)
        assert proxy.parts.pool.controllers[0].record.last_used == used


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("?timeout=soon", 400, "timeout"),
        ("?timeout=-1", 400, "timeout"),
        ("?timeout=nan", 400, "timeout"),
        ("?pool=x", 404, "no pool is named 'x'; there are default"),
    ],
)
async def test_what_is_no_time_or_pool_is_told(
    tmp_path: Path, query: str, status: int, words: str
) -> None:
    async with running_proxy(tmp_path) as proxy:
        got, told = await wait(proxy, query)
        assert got == status
        assert words in told["error"]


async def test_so_many_may_wait_and_no_more(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        pools = list(proxy.parts.pools)
        watch = ReadyWatch(pools, most=1)
        first = start_task(watch.wait(pools, 0.3))
        await asyncio.sleep(0)
        with pytest.raises(TooManyWatchersError):
            await watch.wait(pools, 60.0)
        assert await first is None
        assert await watch.wait(pools, 0.01) is None


async def test_the_end_of_the_proxy_ends_the_wait(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        waiting = start_task(wait(proxy))
        await asyncio.sleep(0.1)
        proxy.parts.ready.release()
        async with asyncio.timeout(5.0):
            assert (await waiting)[0] == 503
