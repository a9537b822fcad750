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

    ``slots``: how many requests it takes at a time; 0: no limit. ``eta_s``: how long
    until a starting one is ready. ``idle_since``: when its last work ended, or when it
    became ready. ``is_external``: somebody else runs it, so it is neither started nor
    drained and counts towards no limit. ``may_start``: no pause after a failed launch
    keeps one at rest from starting.
    """

    name: str
    phase: Phase
    slots: int = 0
    in_flight: int = 0
    eta_s: float = 0.0
    idle_since: float = 0.0
    is_external: bool = False
    may_start: bool = True


@dataclass(frozen=True, slots=True)
class Waiting:
    """Counts the requests that wait for a slot.

    ``waking``: those that more instances would help; not those for a model that only
    one instance has. ``others`` wait too, and start nothing. ``oldest_s``: how long
    the first of ``waking`` has waited.
    """

    waking: int = 0
    oldest_s: float = 0.0
    others: int = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """Tells how much work arrives, and what an instance of the next offer brings.

    ``load``: how many slots the arrivals keep busy on average, as `DemandMeter` has
    measured it. ``service_s``: how long a request takes up its slot. ``boot_s``: how
    long an instance takes to be ready; ``slots``: how many it will have, 0: no limit.
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
    """Holds all that `ollama_proxy.core.pool_plan.plan` looks at.

    ``instances`` has every slot of the pool, whether it runs or not, in their order.
    ``obstacle``: why no instance can be started whatever waits, in words; else "".
    """

    policy: PoolPolicy
    instances: tuple[InstanceFacts, ...]
    waiting: Waiting
    demand: Demand
    obstacle: str = ""
