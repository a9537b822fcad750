"""Bound from below what a pool can cost: machines by a law that knows the future.

It starts each machine so early that it is ready when it is needed, no boot of its
fails, and it stops one at once if that is cheaper than to keep it. Two families of
schedules each give points of cost and waiting: one lets each request wait for up to a
bound, the other follows the mean load around each moment.
"""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.scaling.arrivals import Trace
from bench.scaling.smoothed import HEADROOMS, WINDOWS_S, Work, busy_times, serve

BOUNDS_S = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)


@dataclass(frozen=True, slots=True)
class Point:
    """Holds a cost in machine-seconds and a mean waiting time in seconds."""

    machine_s: float
    mean_wait_s: float


class _Slots:
    """Serves in order of arrival, from the first machine that has a free slot."""

    def __init__(self, slots: int, most: int) -> None:
        self._slots, self._most = slots, most
        self._in_flight = [0] * most
        self._free: list[int] = []
        self._opened = 0
        self._busy_since = [0.0] * most
        self.busy: list[list[tuple[float, float]]] = [[] for _ in range(most)]

    @property
    def is_full(self) -> bool:
        """Tell whether all machines are open, and all their slots are taken."""
        return not self._free and self._opened == self._most

    def begin(self, now: float, *, may_open: bool) -> int | None:
        """Take the lowest free slot of an open machine; open one if that is allowed."""
        if not self._free:
            if not may_open or self._opened == self._most:
                return None
            for _ in range(self._slots):
                heapq.heappush(self._free, self._opened)
            self._opened += 1
        machine = heapq.heappop(self._free)
        if self._in_flight[machine] == 0:
            self._busy_since[machine] = now
        self._in_flight[machine] += 1
        return machine

    def end(self, machine: int, now: float) -> None:
        """Give a slot back; machines that are idle at the top close."""
        self._in_flight[machine] -= 1
        heapq.heappush(self._free, machine)
        if self._in_flight[machine]:
            return
        self.busy[machine].append((self._busy_since[machine], now))
        while self._opened and self._in_flight[self._opened - 1] == 0:
            self._opened -= 1
        self._free = [one for one in self._free if one < self._opened]
        heapq.heapify(self._free)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Holds when each machine is needed, and how long requests wait on average."""

    busy: list[list[tuple[float, float]]]
    mean_wait_s: float


def schedules(trace: Trace, slots: int, most: int) -> list[Schedule]:
    """Return schedules for a trace that wait little and cost much, and others."""
    made: list[Schedule] = []
    for bound_s in BOUNDS_S:
        taken = _Slots(slots, most)
        waited_s = _serve(trace, taken, bound_s)
        made.append(Schedule(taken.busy, waited_s / len(trace.arrivals)))
    work = Work(trace)
    for window_s, headroom in itertools.product(WINDOWS_S, HEADROOMS):
        levels = [*work.levels(window_s, headroom, slots, most)]
        waited_s = serve(trace, levels, slots)
        made.append(Schedule(busy_times(levels, most), waited_s / len(trace.arrivals)))
    return made


def _serve(trace: Trace, slots: _Slots, bound_s: float) -> float:
    """Play the arrivals; return how long all of them waited together."""
    ends: list[tuple[float, int]] = []
    queue: deque[tuple[float, float]] = deque()
    waited_s = now = 0.0
    arrivals = iter(trace.arrivals)
    following = next(arrivals, None)
    while following is not None or queue or ends:
        ended = ends[0][0] if ends else math.inf
        came = following[0] if following is not None else math.inf
        # With all of them open and full, only an end serves the next one.
        due = queue[0][0] + bound_s if queue and not slots.is_full else math.inf
        now = max(now, min(ended, came, due))
        if ended <= now:
            slots.end(heapq.heappop(ends)[1], now)
        elif following is not None and came <= now:
            queue.append(following)
            following = next(arrivals, None)
        while queue:
            may_open = now >= queue[0][0] + bound_s
            machine = slots.begin(now, may_open=may_open)
            if machine is None:
                break
            arrived_at, service_s = queue.popleft()
            waited_s += now - arrived_at
            heapq.heappush(ends, (now + service_s, machine))
    return waited_s


def _cost_s(
    busy: Sequence[tuple[float, float]], boot_s: float, rests_s: float | None
) -> float:
    """Return what a machine costs that is needed at these times."""
    cost_s, before = 0.0, -math.inf
    for begin, end in busy:
        gap_s = begin - before
        if rests_s is None:
            cost_s += min(gap_s, boot_s)
        elif gap_s <= rests_s:
            cost_s += gap_s
        else:
            cost_s += boot_s + (rests_s if before > -math.inf else 0.0)
        cost_s += end - begin
        before = end
    return cost_s + (rests_s or 0.0) * bool(busy)


def frontier(
    made: Iterable[Schedule], boot_s: float, rests_s: float | None = None
) -> list[Point]:
    """Return the points that no other beats, the dearest first.

    ``rests_s``: how long the first machine is kept without work, as the setting has it;
    None: for as long as that is cheaper than another start.
    """
    points = [
        Point(
            sum(
                _cost_s(busy, boot_s, None if number else rests_s)
                for number, busy in enumerate(one.busy)
            ),
            one.mean_wait_s,
        )
        for one in made
    ]
    points.sort(key=lambda one: (one.mean_wait_s, one.machine_s))
    best: list[Point] = []
    for one in points:
        if not best or one.machine_s < best[-1].machine_s:
            best.append(one)
    return best


def cost_at(points: Sequence[Point], mean_wait_s: float) -> float:
    """Return the cost at a waiting time, in a straight line between points."""
    if mean_wait_s <= points[0].mean_wait_s:
        return points[0].machine_s
    for left, right in itertools.pairwise(points):
        if mean_wait_s <= right.mean_wait_s:
            share = (mean_wait_s - left.mean_wait_s) / (
                right.mean_wait_s - left.mean_wait_s
            )
            return left.machine_s + (right.machine_s - left.machine_s) * share
    return points[-1].machine_s
