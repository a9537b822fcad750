"""Limit how many instances a pool has, and how long it keeps them. Values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """Holds the limits of one pool; times are in seconds.

    - ``min_instances``: kept running without work. ``max_instances``: running at most.
      ``max_starting``: starting at once at most.
    - ``idle_timeout_s``: the last instance stops after this time without work.
    - ``keep_extra_s``: the same for one of several; None: the time until an instance is
      ready.
    - ``impatience``: 0.5 to 0.9; rounds the fraction of an instance that waiting
      requests need up or down.
    - ``spill_after_s``: in a pool with an external server, up or not, a request starts
      a cloud's instance only after waiting this long: it may be away for a moment.
    """

    min_instances: int = 0
    max_instances: int = 1
    max_starting: int = 2
    idle_timeout_s: float = 1800.0
    keep_extra_s: float | None = None
    impatience: float = 0.9
    spill_after_s: float = 10.0
