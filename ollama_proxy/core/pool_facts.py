"""Describe a pool at one moment: what its plan is made from. Values only."""

from dataclasses import dataclass
from enum import StrEnum

from ollama_proxy.core.pool_policy import PoolPolicy


class Phase(StrEnum):
    """Names what an instance of a pool is doing.

    ``DRAINING`` takes no new requests, ``LEAVING`` is being stopped: both still run.
    """

    AT_REST = "at rest"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """Tells what one slot of the pool, or one externally managed server, is doing.

    - ``slots``: how many requests it serves at a time; 0: no limit.
    - ``in_flight``: how many requests it has that keep it from being idle.
    - ``elsewhere``: how many of its slots other pools have taken.
    - ``eta_s``: seconds until a starting instance is ready.
    - ``started_at``: when its launch began.
    - ``idle_since``: when its last work ended, or when it became ready.
    - ``is_external``: somebody else runs it, so it is neither started nor drained, and
      does not count towards a limit.
    - ``may_start``: False during the pause after a failed launch.
    """

    name: str
    phase: Phase
    slots: int = 0
    in_flight: int = 0
    elsewhere: int = 0
    eta_s: float = 0.0
    idle_since: float = 0.0
    is_external: bool = False
    may_start: bool = True
    started_at: float = 0.0

    @property
    def has_capacity(self) -> bool:
        """Tell whether it is ready, and other pools leave it a slot."""
        is_left = self.slots == 0 or self.slots > self.elsewhere
        return self.phase is Phase.READY and is_left


@dataclass(frozen=True, slots=True)
class Waiting:
    """Counts the requests that wait for a slot.

    ``waking``: requests that more instances would help. ``others``: requests that start
    nothing, for example for a model that only one instance has. ``oldest_s``: how long
    the first of ``waking`` has waited.
    """

    waking: int = 0
    oldest_s: float = 0.0
    others: int = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """Describes how much work arrives, and what an instance of the next offer adds.

    - ``load``: how many slots the arrivals keep busy on average, by `DemandMeter`.
    - ``service_s``: how long a request occupies its slot.
    - ``boot_s``: time until a new instance is ready.
    - ``slots``: how many a new instance has; 0: no limit.

    Both times are assumed until they are measured.
    """

    load: float = 0.0
    service_s: float = 20.0
    boot_s: float = 300.0
    slots: int = 0
    is_service_measured: bool = False
    is_boot_measured: bool = False


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """Holds all arguments of `ollama_proxy.core.pool_plan.plan`.

    ``instances``: every slot of the pool, running or not, in order. ``obstacle``: why
    no instance can be started, in words; else "". ``drained_at``: when a plan last
    drained an instance; None: not yet.
    """

    policy: PoolPolicy
    instances: tuple[InstanceFacts, ...]
    waiting: Waiting
    demand: Demand
    obstacle: str = ""
    drained_at: float | None = None
