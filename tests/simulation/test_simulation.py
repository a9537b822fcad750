"""Seeded histories of proxy, cloud and crashes; a failure names its seed.

More seeds on request: ``SIMULATION_SEEDS=0-4999 pytest tests/simulation``.
"""

import asyncio

import pytest

from tests.simulation.seeds import batches
from tests.simulation.world import World
from tests.virtual_time import VirtualLoop

TURNS = 200
BATCH = 10


async def _live(seed: int) -> None:
    world = World(seed)
    for turn in range(TURNS):
        await world.turn()
        assert world.cloud.most_paid <= 1, f"seed {seed}, turn {turn}: two instances"
        assert world.bought_in_vain <= 5, f"seed {seed}, turn {turn}: bought in vain"
    await world.calm_down()
    assert world.cloud.paid == 0, f"seed {seed}: an instance outlived the quiet"
    assert world.answered == world.asked, f"seed {seed}: a request was never answered"
    if world.is_locked_out:
        world.order()
    world.request(may_wake=True)
    await asyncio.sleep(120.0)
    assert world.cloud.paid == 1, f"seed {seed}: a wake did nothing after the storm"
    await world.close()


@pytest.mark.parametrize(
    "seeds", batches("0-299", BATCH), ids=lambda r: f"{r.start}-{r.stop - 1}"
)
def test_no_history_leaves_a_second_or_a_forgotten_instance(seeds: range) -> None:
    for seed in seeds:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(_live(seed))
