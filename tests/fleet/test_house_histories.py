"""Random histories of two pools with the same nodes: what must hold after each step.

Nodes come, go, drain, fall silent and begin anew; requests ask, wait, end, and fail.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from ollama_proxy.core.nodes.node_state import NodeState
from tests.fleet.houses import Neighbourhood, a_node
from tests.virtual_time import in_virtual_time

MODELS = ["m", "n", "o"]
SLOTS = {"n0": 1, "n1": 1, "n2": 2, "n3": 4, "n4": 1}


@dataclass
class History:
    """Two pools, their nodes, and what their requests got."""

    rng: random.Random
    pools: list[Neighbourhood] = field(init=False)
    held: Counter[str] = field(default_factory=Counter)
    tasks: list[asyncio.Future[None]] = field(default_factory=list)
    served: int = 0
    boots: int = 0

    def __post_init__(self) -> None:
        first = Neighbourhood()
        self.pools = [first, Neighbourhood(uses=first.house.uses)]

    def change_a_node(self) -> None:
        rng, node_id = self.rng, self.rng.choice(list(SLOTS))
        if rng.random() < 0.15:
            for pool in self.pools:
                pool.house.remove(node_id)
            return
        state = rng.choice([NodeState.ONLINE] * 5 + [*NodeState])
        drains = rng.random() < 0.1
        self.boots += rng.random() < 0.1
        facts = a_node(
            node_id,
            rng.sample(MODELS, rng.randrange(1, 4)),
            boot_id=f"b{self.boots // 5}",
            state=state,
            takes_work=state is NodeState.ONLINE and not drains,
            is_draining=drains,
            slots=SLOTS[node_id],
            foreign=rng.randrange(2),
            cpu=rng.random(),
            loaded=frozenset({"m:latest"}) if rng.random() < 0.5 else None,
        )
        for pool in self.pools:
            pool.house.put(facts)

    def ask(self, wait_s: float | None = None) -> None:
        pool, model = self.rng.choice(self.pools), self.rng.choice(MODELS)
        waits_s = self.rng.choice([0.0, 30.0]) if wait_s is None else wait_s
        self.tasks.append(asyncio.ensure_future(self._ask(pool, model, waits_s)))

    async def _ask(self, pool: Neighbourhood, model: str, wait_s: float) -> None:
        lease = await pool.pool.lease(model, wait_s=wait_s)
        if lease is None:
            return
        self.check()
        with lease:
            await asyncio.sleep(self.rng.random())
            if lease.was_cut:
                return
            if self.rng.random() < 0.2:
                lease.failed("refused")
            else:
                lease.mark_used()
                lease.answered()
                await asyncio.sleep(self.rng.random() * 20.0)
        self.served += 1

    def check(self) -> None:
        """No node has more requests of both pools than it has slots."""
        for node_id, slots in SLOTS.items():
            assert sum(p.house.own_in_flight(node_id) for p in self.pools) <= slots


@pytest.mark.parametrize("seed", range(25))
@in_virtual_time
async def test_no_history_overloads_a_node_or_forgets_a_request(seed: int) -> None:
    history = History(random.Random(seed))
    for _ in range(150):
        if history.rng.random() < 0.3:
            history.change_a_node()
        for _ in range(history.rng.randrange(3)):
            history.ask()
        await asyncio.sleep(history.rng.random() * 3.0)
        history.check()
    for pool in history.pools:
        for node_id, slots in SLOTS.items():
            pool.house.put(a_node(node_id, MODELS, boot_id="end", slots=slots))
    for _ in range(20):
        history.ask(wait_s=0.0)
    served = history.served
    await asyncio.gather(*history.tasks)

    assert history.served >= served + 20
    uses = history.pools[0].house.uses
    for pool in history.pools:
        assert (pool.pool.in_flight, pool.pool.waiting) == (0, 0)
        await pool.pool.aclose()
    assert {uses.of(node_id).taken for node_id in SLOTS} == {0}
