"""Read arrival traces, and give each request a client with its own patience."""

import gzip
import math
import random
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "traces"

_MEDIAN_PATIENCE_S, _SPREAD = 600.0, 0.6
_LEAST_S, _MOST_S = 60.0, 3600.0


@dataclass(slots=True, eq=False)
class Request:
    """Holds one request of a trace and the client that sends it.

    ``service_s``: how long it takes up a slot. ``gives_up_at``: when the client has
    no patience left. ``holds``: the client waits for an instance that starts; others
    get 503 and ask again after our Retry-After. ``is_over``: served, or given up.
    """

    client: int
    arrives_at: float
    service_s: float
    gives_up_at: float
    holds: bool
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """Holds the arrivals of one trace: moments and service times, in seconds."""

    name: str
    arrivals: tuple[tuple[float, float], ...]

    @property
    def ends_at(self) -> float:
        """Return the moment of the last arrival."""
        return self.arrivals[-1][0]

    def requests(self, seed: int) -> list[Request]:
        """Return the requests with their clients, the same for the same seed."""
        rng = random.Random(seed)  # noqa: S311 - a simulation
        return [
            Request(
                client=number,
                arrives_at=arrives_at,
                service_s=service_s,
                gives_up_at=arrives_at + _patience_s(rng),
                holds=rng.random() < 0.5,  # noqa: PLR2004 - half of them
            )
            for number, (arrives_at, service_s) in enumerate(self.arrivals)
        ]


def _patience_s(rng: random.Random) -> float:
    drawn_s = rng.lognormvariate(math.log(_MEDIAN_PATIENCE_S), _SPREAD)
    return min(max(drawn_s, _LEAST_S), _MOST_S)


def trace_names() -> list[str]:
    """Return the names of the traces beside this module."""
    return sorted(path.name.removesuffix(".csv.gz") for path in FOLDER.glob("*.csv.gz"))


def read_trace(path: Path) -> Trace:
    """Read lines of ``arrival_s,service_s`` below a heading."""
    with gzip.open(path, "rt", encoding="ascii") as file:
        next(file)
        rows = (line.split(",") for line in file)
        arrivals = tuple((float(arrival), float(service)) for arrival, service in rows)
    return Trace(path.name.removesuffix(".csv.gz"), arrivals)


def trace(name: str) -> Trace:
    """Return one of the traces beside this module."""
    return read_trace(FOLDER / f"{name}.csv.gz")
