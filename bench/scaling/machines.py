"""Simulate the instances of a pool: they boot, fail, serve, drain, and cost time."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 900.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Says what the machines of a run are like; the same for each law.

    ``boot_s``: the usual time to be ready; a boot takes 0.8 to 1.4 of it.
    ``fails``: the share of boots that fail. ``idle_timeout_s``: how long the last
    machine is kept without work.
    """

    boot_s: float
    slots: int
    fails: float = 0.0
    max_instances: int = 16
    max_starting: int = 4
    idle_timeout_s: float = 1800.0
    seed: int = 1


class Phase(Enum):
    """Names what a machine is doing."""

    STARTING = auto()
    READY = auto()
    DRAINING = auto()


@dataclass(slots=True, eq=False)
class Machine:
    """Holds one machine; ``boots_until`` is known to the world alone."""

    number: int
    started_at: float
    boots_until: float
    will_fail: bool
    phase: Phase = Phase.STARTING
    in_flight: int = 0
    idle_since: float = 0.0


@dataclass(slots=True)
class Machines:
    """Holds the machines that exist, and sums up what they cost."""

    scenario: Scenario
    existing: list[Machine] = field(default_factory=list)
    ready: list[Machine] = field(default_factory=list)
    starting: int = 0
    starts: int = 0
    cost_s: float = 0.0
    pause_until: float = 0.0
    _failures: int = 0

    def start(self, now: float) -> Machine | None:
        """Start a machine, unless a limit or the pause after a failure forbids it."""
        scenario = self.scenario
        if (
            len(self.existing) >= scenario.max_instances
            or self.starting >= scenario.max_starting
            or now < self.pause_until
        ):
            return None
        taken = {one.number for one in self.existing}
        number = next(n for n in range(scenario.max_instances) if n not in taken)
        # The minute decides, so that laws which start at the same time fare alike.
        rng = random.Random(f"{scenario.seed} {now // 60.0} {self.starting}")  # noqa: S311
        boot_s = scenario.boot_s * rng.triangular(0.8, 1.4, 1.0)
        will_fail = rng.random() < scenario.fails
        if will_fail:
            boot_s *= rng.uniform(0.3, 1.0)
        machine = Machine(number, now, now + boot_s, will_fail)
        self.existing.append(machine)
        self.starting += 1
        self.starts += 1
        return machine

    def end_boot(self, machine: Machine, now: float) -> bool:
        """End a boot; return whether the machine is ready, and did not fail."""
        if machine not in self.existing:  # it was cancelled
            return False
        self.starting -= 1
        if machine.will_fail:
            self._failures += 1
            pause_s = min(_PAUSE_S * 2.0 ** (self._failures - 1), _LONGEST_PAUSE_S)
            self.pause_until = now + pause_s
            self._end(machine, now)
            return False
        self._failures = 0
        machine.phase = Phase.READY
        machine.idle_since = now
        self.ready.append(machine)
        return True

    def cancel(self, machine: Machine, now: float) -> None:
        """End a machine that is not ready yet."""
        self.starting -= 1
        self._end(machine, now)

    def drain(self, machine: Machine, now: float) -> None:
        """Give a ready machine no more requests; it ends once it has none."""
        self.ready.remove(machine)
        machine.phase = Phase.DRAINING
        if machine.in_flight == 0:
            self._end(machine, now)

    def release(self, machine: Machine, now: float) -> None:
        """Take in that a machine has served a request."""
        machine.in_flight -= 1
        if machine.in_flight == 0:
            machine.idle_since = now
            if machine.phase is Phase.DRAINING:
                self._end(machine, now)

    def idle_for(self, seconds: float, now: float) -> Iterator[Machine]:
        """Return the ready machines that have had no work for so long."""
        return (
            one
            for one in self.ready
            if one.in_flight == 0 and now - one.idle_since >= seconds
        )

    def end_all(self, now: float) -> None:
        """End every machine: the run is over."""
        for machine in [*self.existing]:
            self._end(machine, now)

    def _end(self, machine: Machine, now: float) -> None:
        self.existing.remove(machine)
        if machine in self.ready:
            self.ready.remove(machine)
        self.cost_s += now - machine.started_at
