"""Seeded histories of three pools, three offers and crashes; a failure names its seed.

More seeds on request: ``SIMULATION_SEEDS=0-99999 pytest tests/simulation/test_pools.py
-n 2``. How many of 200 seeds see a promise that is broken on purpose: a slot that is
free while its instance is stopped 58, an id for two offers 47, a launch stored after
its call 38, a limit per offer and slot 35, a refused try that is forgotten at once 12,
any failed try beside the next 10, a wish without an end 8.
"""

import asyncio

import pytest

from tests.simulation.pools_world import ORDERS, PoolsWorld
from tests.simulation.seeds import batches
from tests.virtual_time import VirtualLoop

TURNS = 12
BATCH = 25
DAY_S = 86_400.0


async def live(seed: int) -> None:
    """Play one history; raises `AssertionError` for what must never happen."""
    world = PoolsWorld(seed)

    def holds(is_so: bool, what: str) -> None:
        assert is_so, f"seed {seed}: {what}"

    for turn in range(TURNS):
        await world.turn()
        world.look_for_strays()
        for pool in ORDERS:
            vain = world.bought_in_vain(pool)
            holds(vain <= 5, f"turn {turn}: {vain} launches of {pool} served nobody")
        holds(not world.violations, f"turn {turn}: {world.violations}")
    await world.calm_down()
    holds(not world.violations, str(world.violations))
    holds(world.paid == 0, "an instance outlived the quiet")
    for pool, account in world.accounts.items():
        holds(account.answered == account.asked, f"a request to {pool} was forgotten")
    before = world.launches
    await world.pass_time(DAY_S if seed % 10 == 0 else 0.0)
    holds(world.launches == before, "a launch that nobody asked for")
    for pool in ORDERS:
        world.order(pool)
        await world.pass_time(120.0)
        holds(world.pools[pool].is_ready, f"{pool} is not ready after the storm")
    holds(not world.violations, str(world.violations))
    await world.close()


@pytest.mark.parametrize(
    "seeds", batches("0-499", BATCH), ids=lambda r: f"{r.start}-{r.stop - 1}"
)
def test_no_history_breaks_what_pools_promise(seeds: range) -> None:
    for seed in seeds:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(live(seed))
