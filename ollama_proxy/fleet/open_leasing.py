"""Choose what holds the leases of a pool, by whether it has nodes."""

import random
from collections.abc import Callable, Sequence

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.demand import DemandMeter
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.house import House
from ollama_proxy.fleet.house_leasing import HouseLeasing
from ollama_proxy.fleet.leasing import Leasing


def open_leasing(
    controllers: Sequence[Controller],
    clock: Clock,
    *,
    meter: DemandMeter,
    freed: Callable[[], None],
    served: Callable[[], None],
    houses: Sequence[House],
    rng: random.Random | None,
) -> Leasing:
    """Return a `HouseLeasing` for a pool that may have nodes, else a `Leasing`."""
    if not houses:
        return Leasing(controllers, clock, meter=meter, freed=freed, served=served)
    return HouseLeasing(
        controllers,
        clock,
        meter=meter,
        freed=freed,
        served=served,
        rng=rng or random.Random(),  # noqa: S311 - no secret
        houses=[house.offer.name for house in houses],
        uses=houses[0].uses,
    )
