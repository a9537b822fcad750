"""Plan machines by the mean load around each moment, of which the future is known."""

import heapq
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import accumulate, pairwise

from bench.scaling.arrivals import Trace

WINDOWS_S = (60.0, 300.0, 900.0)
HEADROOMS = (0.9, 1.0, 1.15, 1.4)
"""Slots in parts of the mean load: fewer let requests wait until the load falls."""

_STEPS = 6


class Work:
    """Tells how many slot-seconds a trace needs until a moment, if nothing waits."""

    def __init__(self, trace: Trace) -> None:
        changes = sorted(
            change
            for begin, service_s in trace.arrivals
            for change in ((begin, 1), (begin + service_s, -1))
        )
        self._moments = [moment for moment, _ in changes]
        self._busy = [*accumulate(change for _, change in changes)]
        spans = (later - earlier for earlier, later in pairwise(self._moments))
        done = (span * busy for span, busy in zip(spans, self._busy, strict=False))
        self._done_s = [0.0, *accumulate(done)]
        self.begins_at, self.ends_at = self._moments[0], self._moments[-1]

    def until(self, moment: float) -> float:
        """Return the slot-seconds until a moment."""
        at = bisect_right(self._moments, moment) - 1
        if at < 0:
            return 0.0
        return self._done_s[at] + self._busy[at] * (moment - self._moments[at])

    def levels(
        self, window_s: float, headroom: float, slots: int, most: int
    ) -> Iterator[tuple[float, int]]:
        """Return from when on how many machines carry the mean load of the window."""
        step_s, before = window_s / _STEPS, 0
        moment = self.begins_at - window_s / 2.0
        while moment < self.ends_at + window_s:
            half_s = window_s / 2.0
            mean = (
                self.until(moment + half_s) - self.until(moment - half_s)
            ) / window_s
            level = 0
            if mean > 1e-9:  # noqa: PLR2004 - rounding
                level = min(max(1, math.ceil(mean * headroom / slots)), most)
            if level != before:
                yield moment, level
                before = level
            moment += step_s
        yield moment, 0


def serve(trace: Trace, levels: list[tuple[float, int]], slots: int) -> float:
    """Serve in order of arrival with so many machines; return how long all waited."""
    ends: list[float] = []
    queue: deque[tuple[float, float]] = deque()
    waited_s, level = 0.0, 0
    changes = deque(levels)
    arrivals = deque(trace.arrivals)
    while arrivals or queue:
        came = arrivals[0][0] if arrivals else math.inf
        ended = ends[0] if ends else math.inf
        changed = changes[0][0] if changes else math.inf
        now = min(came, ended, changed)
        if now == math.inf:  # the plan is over: one more machine serves the rest
            level, now = level + 1, queue[-1][0]
        elif changed <= now:
            level = max(changes.popleft()[1], 1 if not changes and queue else 0)
        elif ended <= now:
            heapq.heappop(ends)
        else:
            queue.append(arrivals.popleft())
        while queue and len(ends) < level * slots:
            arrived_at, service_s = queue.popleft()
            waited_s += max(0.0, now - arrived_at)
            heapq.heappush(ends, max(now, arrived_at) + service_s)
    return waited_s


def busy_times(
    levels: list[tuple[float, int]], most: int
) -> list[list[tuple[float, float]]]:
    """Return for each machine when it is needed."""
    busy: list[list[tuple[float, float]]] = [[] for _ in range(most)]
    since = [0.0] * most
    before = 0
    for moment, level in levels:
        for machine in range(before, level):
            since[machine] = moment
        for machine in range(level, before):
            busy[machine].append((since[machine], moment))
        before = level
    return busy
