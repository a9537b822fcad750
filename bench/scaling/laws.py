"""Our law, as the product has it, and the simplest one: never more than one."""

import math

from bench.scaling.arrivals import Request
from bench.scaling.machines import Machine, Phase, Scenario
from bench.scaling.world import World
from ollama_proxy.core import pool_facts
from ollama_proxy.core.demand import DemandMeter, boot_prior_s
from ollama_proxy.core.lifecycle.estimates import Estimates
from ollama_proxy.core.pool_facts import Demand, InstanceFacts, PoolFacts, Waiting
from ollama_proxy.core.pool_plan import Plan, plan
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.store.memory import MemoryStore

_PRIOR_S = boot_prior_s(is_external=False, is_child=False)


class SpreadingLaw:
    """Serves from the machine with the fewest requests, and measures nothing."""

    tick_s = 1.0
    rest_tick_s = 4.0

    def decide(self, world: World) -> None:
        """Do nothing of its own accord."""

    def pick(self, world: World) -> Machine | None:
        """Return the machine with the fewest requests in flight."""
        ready = world.machines.ready
        if not ready:
            return None
        machine = min(ready, key=lambda one: one.in_flight)
        return machine if machine.in_flight < world.scenario.slots else None

    def arrived(self, request: Request, now: float) -> None:
        """Ignore an arrival."""

    def refused(self, request: Request, now: float) -> None:
        """Ignore a refusal."""

    def served(self, request: Request) -> None:
        """Ignore how long a request took."""

    def booted(self, took_s: float) -> None:
        """Ignore how long a boot took."""


class FixedLaw(SpreadingLaw):
    """Keeps one machine running, always."""

    tick_s = rest_tick_s = 600.0

    def decide(self, world: World) -> None:
        """Start it if it is not there."""
        if not world.machines.existing:
            world.start()


class OneLaw(SpreadingLaw):
    """Starts one machine for the first request, and ends it when it is idle."""

    def decide(self, world: World) -> None:
        """Start it if something waits; end it after the idle time-out."""
        if world.concurrency and not world.machines.existing:
            world.start()
        end_idle(world)


def end_idle(world: World) -> None:
    """End the machines that the idle time-out of an instance ends."""
    timeout_s = world.scenario.idle_timeout_s
    for machine in [*world.machines.idle_for(timeout_s, world.now)]:
        world.machines.drain(machine, world.now)


class OurLaw(SpreadingLaw):
    """Asks the product's own functions: plan, meter and estimates."""

    def __init__(self, scenario: Scenario, **policy: float) -> None:
        self._policy = PoolPolicy(
            max_instances=scenario.max_instances,
            max_starting=scenario.max_starting,
            idle_timeout_s=scenario.idle_timeout_s,
            **policy,  # type: ignore[arg-type]  # fields by name
        )
        self._meter = DemandMeter()
        self._estimates = Estimates(MemoryStore())
        self._resting = [
            InstanceFacts(f"default/{number}", pool_facts.Phase.AT_REST)
            for number in range(scenario.max_instances)
        ]
        self._is_packing = False

    def decide(self, world: World) -> None:
        """Carry the plan out."""
        made = self.plan(world)
        self._is_packing = made.is_packing
        for _ in made.start:
            world.start()
        for machine in [*world.machines.ready]:
            if f"default/{machine.number}" in made.drain:
                world.machines.drain(machine, world.now)
        end_idle(world)

    def plan(self, world: World) -> Plan:
        """Return the plan of this moment."""
        measured_s = self._estimates.slow_s("offer")
        boot_s = measured_s or _PRIOR_S
        facts = PoolFacts(
            policy=self._policy,
            instances=self._instances(world, boot_s),
            # As in the product, the clients that will ask again count as one.
            waiting=Waiting(world.waiting or min(1, world.returning), world.oldest_s),
            demand=Demand(
                load=self._meter.load(world.now, boot_s),
                service_s=self._meter.service_s,
                boot_s=boot_s,
                slots=world.scenario.slots,
                is_service_measured=self._meter.is_service_measured,
                is_boot_measured=measured_s is not None,
            ),
        )
        return plan(facts, world.now)

    def _instances(self, world: World, boot_s: float) -> tuple[InstanceFacts, ...]:
        facts = [*self._resting]
        for one in world.machines.existing:
            facts[one.number] = InstanceFacts(
                name=f"default/{one.number}",
                phase=_PHASES[one.phase],
                slots=world.scenario.slots,
                in_flight=one.in_flight,
                eta_s=max(1.0, boot_s - (world.now - one.started_at)),
                idle_since=one.idle_since,
            )
        return tuple(facts)

    def pick(self, world: World) -> Machine | None:
        """Return the machine with the fewest requests; when packing, with the most."""
        if not self._is_packing:
            return super().pick(world)
        slots = world.scenario.slots
        free = [one for one in world.machines.ready if one.in_flight < slots]
        return max(free, key=lambda one: one.in_flight, default=None)

    def arrived(self, request: Request, now: float) -> None:
        """Count an arrival."""
        self._meter.arrived(request.client, now)

    def refused(self, request: Request, now: float) -> None:
        """Remember that the client will come back."""
        self._meter.refused(request.client, now)

    def served(self, request: Request) -> None:
        """Measure how long a request took."""
        self._meter.served(request.service_s)

    def booted(self, took_s: float) -> None:
        """Measure how long a boot took."""
        self._estimates.add_launch("offer", took_s)


_PHASES = {
    Phase.STARTING: pool_facts.Phase.STARTING,
    Phase.READY: pool_facts.Phase.READY,
    Phase.DRAINING: pool_facts.Phase.DRAINING,
}


def needed(load: float, target: float) -> int:
    """Return how many machines carry a load at a target per machine."""
    return math.ceil(load / target - 1e-9)
