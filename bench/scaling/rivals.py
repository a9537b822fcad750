"""Simulate the laws of other systems, rewritten from their sources and documents.

Each keeps its last machine for the same idle time-out, and starts the first one for
the first request at once, as all of them can.
"""

import bisect
import math
from abc import ABC, abstractmethod
from collections import deque

from bench.scaling.laws import SpreadingLaw, needed
from bench.scaling.machines import Phase
from bench.scaling.world import World


class Window:
    """Averages over the last seconds what the world sums up."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._samples: deque[tuple[float, float]] = deque([(0.0, 0.0)])

    def add(self, now: float, total: float) -> None:
        """Take in the sum as it is now."""
        self._samples.append((now, total))
        samples = self._samples
        while len(samples) > 2 and samples[1][0] <= now - self._longest_s:  # noqa: PLR2004
            samples.popleft()

    def mean(self, seconds: float) -> float:
        """Return how much the sum grew per second, over the last ``seconds``."""
        now, total = self._samples[-1]
        since = now - seconds
        at = bisect.bisect_right(self._samples, (since, math.inf)) - 1
        if at < 0:
            return total / seconds
        moment, before = self._samples[at]
        if at + 1 < len(self._samples):
            following, after = self._samples[at + 1]
            if following > moment:
                share = (since - moment) / (following - moment)
                before += (after - before) * share
        return (total - before) / seconds


class RivalLaw(SpreadingLaw, ABC):
    """Brings the number of machines to what a formula says."""

    window_s = 60.0

    def __init__(self) -> None:
        self._window = Window(self.window_s)

    def total(self, world: World) -> float:
        """Return the sum whose growth is averaged: of requests in the system."""
        return world.work_seen

    @abstractmethod
    def desired(self, world: World) -> int:
        """Return how many machines the formula asks for."""

    def decide(self, world: World) -> None:
        """Start what is missing, drain what is too many; keep the last one a while."""
        self._window.add(world.now, self.total(world))
        machines = world.machines
        running = len(machines.ready) + machines.starting
        desired = self.desired(world)
        if world.concurrency:
            desired = max(desired, 1)
        is_kept = world.now - world.last_used < world.scenario.idle_timeout_s
        if running and (is_kept or machines.starting):
            desired = max(desired, 1)
        for _ in range(desired - running):
            if not world.start():
                break
        self._remove(world, running - desired)

    def _remove(self, world: World, count: int) -> None:
        """End machines: those that are not ready yet first, then the least busy."""
        machines = world.machines
        starting = [one for one in machines.existing if one.phase is Phase.STARTING]
        least_busy = sorted(machines.ready, key=lambda one: one.in_flight)
        for machine in [*reversed(starting), *least_busy][: max(count, 0)]:
            if machine.phase is Phase.STARTING:
                machines.cancel(machine, world.now)
            else:
                machines.drain(machine, world.now)


class KnativeLaw(RivalLaw):
    """Follows Knative's KPA: 70 % of the slots, means of 60 s and, in panic, 6 s.

    knative/serving, pkg/autoscaler/scaling/autoscaler.go and config-autoscaler.
    """

    tick_s = rest_tick_s = 2.0

    def __init__(self) -> None:
        super().__init__()
        self._panic_since: float | None = None
        self._panic_most = 0

    def desired(self, world: World) -> int:
        """Return the mean by the target, or the panic's greatest."""
        target = 0.7 * world.scenario.slots
        ready = len(world.machines.ready)
        most, least = 1000 * max(ready, 1), ready // 2
        stable = needed(self._window.mean(60.0), target)
        panic = needed(self._window.mean(6.0), target)
        stable = min(max(stable, least), most)
        panic = min(max(panic, least), most)
        if panic / max(ready, 1) >= 2:  # noqa: PLR2004 - 200 %, their default
            self._panic_since = world.now
        elif self._panic_since is not None and world.now - self._panic_since > 60.0:  # noqa: PLR2004
            self._panic_since, self._panic_most = None, 0
        if self._panic_since is None:
            return stable
        self._panic_most = max(self._panic_most, panic, stable)
        return self._panic_most


class KubeAiLaw(RivalLaw):
    """Follows KubeAI: the mean of 10 minutes; down after three lower results.

    kubeai-project/kubeai, internal/modelautoscaler and internal/modelclient/scale.go.
    """

    tick_s = rest_tick_s = 10.0
    window_s = 600.0

    def __init__(self) -> None:
        super().__init__()
        self._lower = 0

    def desired(self, world: World) -> int:
        """Return the mean by the slots."""
        running = len(world.machines.ready) + world.machines.starting
        desired = needed(self._window.mean(600.0), world.scenario.slots)
        self._lower = self._lower + 1 if desired < running else 0
        return desired if self._lower == 0 or self._lower >= 3 else running  # noqa: PLR2004


class DelayedLaw(RivalLaw):
    """Follows a formula once it has given the same direction for long enough."""

    up_after_s = 30.0
    down_after_s = 600.0

    def __init__(self) -> None:
        super().__init__()
        self._up_since: float | None = None
        self._down_since: float | None = None

    @abstractmethod
    def formula(self, world: World) -> int:
        """Return what is followed after the delay."""

    def desired(self, world: World) -> int:
        """Return the formula's number, or what runs while the delay lasts."""
        now = world.now
        running = len(world.machines.ready) + world.machines.starting
        desired = self.formula(world)
        if desired > running:
            self._down_since = None
            self._up_since = now if self._up_since is None else self._up_since
            due = running == 0 or now - self._up_since >= self.up_after_s
        elif desired < running:
            self._up_since = None
            self._down_since = now if self._down_since is None else self._down_since
            due = now - self._down_since >= self.down_after_s
        else:
            self._up_since = self._down_since = None
            return running
        if due:
            self._up_since = self._down_since = None
        return desired if due else running


class RayServeLaw(DelayedLaw):
    """Follows Ray Serve: the mean of 30 s; up after 30 s, down after 600 s.

    ray-project/ray, python/ray/serve/autoscaling_policy.py and config.py.
    """

    tick_s = rest_tick_s = 10.0

    def formula(self, world: World) -> int:
        """Return the mean by the slots."""
        return needed(self._window.mean(30.0), world.scenario.slots)


class SkyServeLaw(DelayedLaw):
    """Follows SkyServe: requests of 60 s; up after 300 s, down after 1 200 s.

    skypilot 0.14.1, sky/serve/autoscalers.py and constants.py. It is given the exact
    rate that a machine serves.
    """

    tick_s = rest_tick_s = 20.0
    up_after_s = 300.0
    down_after_s = 1200.0

    def __init__(self, service_s: float) -> None:
        super().__init__()
        self._service_s = service_s

    def total(self, world: World) -> float:
        """Return how many requests arrived."""
        return float(world.arrivals_seen)

    def formula(self, world: World) -> int:
        """Return the rate by that of a machine."""
        return needed(self._window.mean(60.0), world.scenario.slots / self._service_s)


class RunPodLaw(RivalLaw):
    """Follows RunPod's request count: what is queued or runs, by the slots.

    docs.runpod.io, serverless endpoints; a worker ends after 5 s without work.
    """

    tick_s = rest_tick_s = 1.0

    def desired(self, world: World) -> int:
        """Return the requests by the slots, but end none that had work of late."""
        machines = world.machines
        idle = sum(1 for _ in machines.idle_for(5.0, world.now))
        busy = len(machines.ready) - idle + machines.starting
        return max(needed(world.concurrency, world.scenario.slots), busy)
