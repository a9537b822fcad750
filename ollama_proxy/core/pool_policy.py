"""Limit how many instances a pool has, and how long it keeps them. Values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """Holds the limits of one pool; times are in seconds.

    ``min_instances`` are kept running without work, at most ``max_instances`` run, of
    which at most ``max_starting`` start at once. The last instance stops after
    ``idle_timeout_s`` without work, one of several after ``keep_extra_s``; None: after
    the time that one takes to start. ``impatience`` (0.5 to 0.9) rounds the part of
    an instance that the waiting requests need up or down. While an externally managed
    server is there, a cloud is asked only once a request has waited ``spill_after_s``.
    """

    min_instances: int = 0
    max_instances: int = 1
    max_starting: int = 2
    idle_timeout_s: float = 1800.0
    keep_extra_s: float | None = None
    impatience: float = 0.9
    spill_after_s: float = 10.0
