"""Choose what holds the leases of a pool, by whether it has nodes."""

import random
from collections.abc import Callable, Sequence

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.demand import DemandMeter
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.house_leasing import HouseLeasing
from ollama_proxy.fleet.leasing import Leasing


def open_leasing(
    controllers: Sequence[Controller],
    clock: Clock,
    *,
    meter: DemandMeter,
    freed: Callable[[], None],
    served: Callable[[], None],
    has_nodes: bool,
    rng: random.Random,
) -> Leasing:
    """Return a `HouseLeasing` for a pool that may have nodes, else a `Leasing`."""
    if not has_nodes:
        return Leasing(controllers, clock, meter=meter, freed=freed, served=served)
    return HouseLeasing(
        controllers, clock, meter=meter, freed=freed, served=served, rng=rng
    )
