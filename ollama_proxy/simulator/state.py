"""Hold the parts of a simulator: behaviour, models and counters."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ollama_proxy.simulator.faults import Faults
from ollama_proxy.simulator.models import ModelStore


@dataclass(slots=True)
class Manners:
    """Holds how the simulator behaves. ``rate``: tokens per second; 0: no limit.

    ``max_loaded``: how many models are in memory at once; 0: no limit. ``vram_share``:
    the reported share of a loaded model on a GPU, 0 to 1.
    """

    rate: float = 0.0
    load_s: float = 0.0
    pull_s: float = 0.0
    max_loaded: int = 0
    vram_share: float = 0.0
    faults: Faults = field(default_factory=Faults)


@dataclass(slots=True)
class Counters:
    """Counts requests and loads, for tests: ``GET /-/simulator``.

    ``working``: requests for inference in progress. ``most_working``: their maximum.
    """

    requests: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    working: int = 0
    most_working: int = 0
    cancelled: int = 0


class Simulator:
    """Holds what its routes share: manners, models, counters and a clock."""

    def __init__(self, manners: Manners, now: Callable[[], float]) -> None:
        self.manners = manners
        self.now = now
        self.store = ModelStore(
            now, load_s=manners.load_s, max_loaded=manners.max_loaded
        )
        self.counters = Counters()
