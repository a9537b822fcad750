"""Many at once: waiters in one pool, streams in one process."""

import asyncio
import functools
import random
from pathlib import Path

from bench.measure import alone
from bench.scenarios import SMOKE, open_streams, soak
from ollama_proxy.fleet.lease import Lease
from tests.fleet.rig import Deployment
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_ten_thousand_wait_for_one_launch() -> None:
    deployment = Deployment()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    waiting = [
        asyncio.ensure_future(deployment.pool.lease("m", wait_s=60))
        for _ in range(10_000)
    ]
    # A few turns of the loop: the launch is written down before the first one waits.
    for _ in range(10):
        await asyncio.sleep(0)
    assert deployment.pool.waiting == 10_000

    leases = await asyncio.gather(*waiting)

    assert all(isinstance(lease, Lease) for lease in leases)
    assert deployment.cloud.launches == 1
    assert deployment.pool.waiting == 0
    assert loop.time() - begun < 10
    await deployment.pool.aclose()


async def test_an_open_stream_takes_less_than_forty_kilobytes(tmp_path: Path) -> None:
    scenario = functools.partial(open_streams, count=400)
    figures = await alone("ours", tmp_path / "open", scenario)

    assert figures["streams_of_400"] == 400
    assert 0 < figures["kib_per_stream_of_400"] <= 40


async def test_memory_stays_flat_under_load(tmp_path: Path) -> None:
    scenario = functools.partial(soak, load=SMOKE, rng=random.Random(1))
    figures = await alone("ours", tmp_path / "soak", scenario)

    assert figures["soak_requests"] > 0
    assert figures["soak_grows_mib"] < 8
