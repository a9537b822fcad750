"""Nodes are found by their models, whatever comes, changes and leaves in between."""

import random

from ollama_proxy.core.ollama.model_names import full_model_name
from tests.fleet.houses import Neighbourhood, a_node
from tests.virtual_time import in_virtual_time

NAMES = ["m", "n", "o", "p"]


@in_virtual_time
async def test_after_any_history_the_nodes_of_a_model_are_those_that_have_it() -> None:
    for seed in range(30):
        rng, homes = random.Random(seed), Neighbourhood()
        nodes = homes.pool.nodes
        assert nodes is not None
        for _ in range(60):
            node_id = f"n{rng.randrange(6)}"
            if rng.random() < 0.2:
                homes.house.remove(node_id)
                continue
            has = rng.sample(NAMES, rng.randrange(4))
            boot_id = rng.choice(["b1", "b2"])
            works = rng.random() < 0.7
            homes.house.put(a_node(node_id, has, boot_id=boot_id, takes_work=works))
            facts = [one.facts for one in homes.house.nodes]
            ready = {one.node_id for one in facts if one.takes_work}
            for name in NAMES:
                full = full_model_name(name)
                holders = {one.node_id for one in facts if full in one.models}
                chosen = {homes.node_of(name) for _ in range(12)} - {None}
                assert nodes.is_known(full) is bool(holders)
                assert nodes.has_ready_node(name) is bool(holders & ready)
                assert chosen == holders & ready
            assert homes.pool.ready_count == len(ready)
        assert homes.pool.in_flight == 0
        await homes.pool.aclose()
