"""What 1 000 nodes cost the hub without sockets; the bounds are far above the usual."""

import time
from collections.abc import Callable

from ollama_proxy.hub.beat_door import BeatDoor
from ollama_proxy.hub.beat_rules import RegistryLimits
from tests.core.nodes.beats import entry, our_beat, sent
from tests.hub.nodes import PEER, Hub
from tests.server.hub.test_beats import Access

NODES = 1000
MODELS = [entry(f"model{number}:7b") for number in range(10)]


def best_of_three(run: Callable[[], object]) -> float:
    """Return the CPU seconds of this process: others do not count."""
    taken = []
    for _ in range(3):
        begun = time.process_time()
        run()
        taken.append(time.process_time() - begun)
    return min(taken)


def test_a_beat_a_second_and_a_list_of_1000_nodes_cost_little() -> None:
    hub = Hub(limits=RegistryLimits())
    door = BeatDoor(hub.registry, Access())
    seq = 0

    def period() -> None:
        nonlocal seq
        seq += 1
        for body in bodies[seq]:
            door.take(PEER, body)

    bodies = {
        number: [
            sent(our_beat(f"node{node}", number, models=MODELS, in_flight=number))
            for node in range(NODES)
        ]
        for number in range(1, 6)
    }
    period()
    hub.registry.tick()

    assert best_of_three(period) < 0.25, "usually 0.03: 30 µs a beat"
    assert best_of_three(hub.registry.tick) < 0.005, "usually 0.0001"
    assert best_of_three(hub.registry.listed) < 0.3, "usually 0.02"
