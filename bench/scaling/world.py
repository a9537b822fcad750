"""Simulate a pool and its clients under a law, event by event; seeded."""

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from bench.scaling.arrivals import Request, Trace
from bench.scaling.machines import Machine, Machines, Scenario
from ollama_proxy.core.ollama.error_bodies import retry_after_s

_AFTERWARDS_S = 7200.0
"""How long a run goes on after its last arrival, so that each law's rest counts."""

_NOTHING_S = 10.0


class Law(Protocol):
    """Decides how many machines there are.

    ``tick_s``: how often it looks; ``rest_tick_s``: while no request waits. Without any
    request, ten seconds are enough.
    """

    tick_s: float
    rest_tick_s: float

    def decide(self, world: "World") -> None:
        """Start and drain machines of the world, as the law has it."""

    def pick(self, world: "World") -> Machine | None:
        """Return the ready machine that serves the next request; None: all are full."""

    def arrived(self, request: Request, now: float) -> None:
        """Take in that a client asks."""

    def refused(self, request: Request, now: float) -> None:
        """Record that a client got a 503 and will retry."""

    def served(self, request: Request) -> None:
        """Take in that a request has left its slot."""

    def booted(self, took_s: float) -> None:
        """Take in how long a machine took to be ready."""


class _Event(IntEnum):
    SERVED, BOOTED, RETRY, GIVEN_UP, TICK = range(5)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds what a run cost and what its clients went through.

    ``waits_s``: each client's time until its request began, or until it gave up.
    """

    machine_s: float
    starts: int
    waits_s: list[float]
    lost: int


@dataclass(slots=True)
class World:
    """Holds the state of a run that laws look at."""

    scenario: Scenario
    law: Law
    machines: Machines
    now: float = 0.0
    queue: deque[Request] = field(default_factory=deque)
    waiting: int = 0
    returning: int = 0
    in_flight: int = 0
    work_seen: float = 0.0
    arrivals_seen: int = 0
    last_used: float = 0.0
    _rng: random.Random = field(default_factory=random.Random)
    _events: list[tuple[float, int, _Event, object]] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _waits_s: list[float] = field(default_factory=list)
    _lost: int = 0
    _ticks: bool = False

    @property
    def concurrency(self) -> int:
        """Return how many requests are in flight, wait, or will come back."""
        return self.in_flight + self.waiting + self.returning

    @property
    def oldest_s(self) -> float:
        """Return how long the first request of the queue has waited."""
        while self.queue and self.queue[0].is_over:
            self.queue.popleft()
        return self.now - self.queue[0].arrives_at if self.queue else 0.0

    def eta_s(self) -> float | None:
        """Return how long until a starting machine is ready, as far as is known."""
        elapsed_s = [
            self.now - one.started_at
            for one in self.machines.existing
            if one not in self.machines.ready
        ]
        if not elapsed_s:
            return None
        return max(1.0, self.scenario.boot_s - max(elapsed_s))

    def start(self) -> bool:
        """Start a machine if the limits allow it."""
        machine = self.machines.start(self.now)
        if machine is None:
            return False
        self._at(machine.boots_until, _Event.BOOTED, machine)
        return True

    def run(self, trace: Trace) -> Outcome:
        """Play a trace to its end."""
        requests = iter(trace.requests(self.scenario.seed))
        end = trace.ends_at + _AFTERWARDS_S
        following = next(requests, None)
        self.law.decide(self)
        while True:
            event_at = self._events[0][0] if self._events else end
            if following is not None and following.arrives_at <= event_at:
                self._advance(following.arrives_at)
                self.arrivals_seen += 1
                self._ask(following)
                following = next(requests, None)
            elif event_at >= end:
                break
            else:
                event_at, _, event, subject = heapq.heappop(self._events)
                self._advance(event_at)
                self._handle(event, subject)
        self._advance(end)
        self.machines.end_all(end)
        return Outcome(
            self.machines.cost_s, self.machines.starts, self._waits_s, self._lost
        )

    def _at(self, moment: float, event: _Event, subject: object = None) -> None:
        heapq.heappush(self._events, (moment, next(self._numbers), event, subject))

    def _advance(self, moment: float) -> None:
        self.work_seen += self.concurrency * (moment - self.now)
        self.now = moment

    def _handle(self, event: _Event, subject: object) -> None:
        match event, subject:
            case _Event.SERVED, (Request() as request, Machine() as machine):
                self.in_flight -= 1
                self.last_used = self.now
                self.law.served(request)
                self.machines.release(machine, self.now)
                self._serve_waiting()
            case _Event.BOOTED, Machine() as machine:
                if self.machines.end_boot(machine, self.now):
                    self.last_used = self.now
                    self.law.booted(self.now - machine.started_at)
                    self._serve_waiting()
                self.law.decide(self)
            case _Event.RETRY, Request() as request:
                self.returning -= 1
                self._ask(request)
            case _Event.GIVEN_UP, Request() as request if not request.is_over:
                self.waiting -= 1
                self._lose(request)
            case _Event.TICK, _:
                self._tick()

    def _ask(self, request: Request) -> None:
        self.law.arrived(request, self.now)
        if (machine := self.law.pick(self)) is not None:
            self._begin(request, machine)
        elif request.holds or self.machines.ready:
            self.queue.append(request)
            self.waiting += 1
            self._at(request.gives_up_at, _Event.GIVEN_UP, request)
            self._look()
        else:
            self._refuse(request)
            self._look()

    def _look(self) -> None:
        """Let the law look at once, and from now on at its pace."""
        self.law.decide(self)
        if not self._ticks:
            self._ticks = True
            self._at(self.now + self.law.tick_s, _Event.TICK)

    def _tick(self) -> None:
        self.law.decide(self)
        self._ticks = bool(self.machines.existing or self.waiting or self.returning)
        if self._ticks:
            waits = self.waiting or self.returning or self.machines.starting
            pace_s = self.law.tick_s if waits else self.law.rest_tick_s
            if not self.concurrency:
                pace_s = max(pace_s, _NOTHING_S)
            self._at(self.now + pace_s, _Event.TICK)

    def _refuse(self, request: Request) -> None:
        self.law.refused(request, self.now)
        again_s = retry_after_s(self.eta_s(), self._rng.random())
        if self.now + again_s >= request.gives_up_at:
            self._lose(request)
            return
        self.returning += 1
        self._at(self.now + again_s, _Event.RETRY, request)

    def _begin(self, request: Request, machine: Machine) -> None:
        request.is_over = True
        machine.in_flight += 1
        self.in_flight += 1
        self.last_used = self.now
        self._waits_s.append(self.now - request.arrives_at)
        self._at(self.now + request.service_s, _Event.SERVED, (request, machine))

    def _lose(self, request: Request) -> None:
        request.is_over = True
        self._lost += 1
        self._waits_s.append(request.gives_up_at - request.arrives_at)

    def _serve_waiting(self) -> None:
        while self.waiting:
            machine = self.law.pick(self)
            if machine is None:
                return
            request = self.queue.popleft()
            if not request.is_over:
                self.waiting -= 1
                self._begin(request, machine)


def play(trace: Trace, scenario: Scenario, law: Law) -> Outcome:
    """Play a trace under a law, with dice of the scenario's seed."""
    rng = random.Random(scenario.seed)  # noqa: S311 - a simulation
    world = World(scenario, law, Machines(scenario), _rng=rng)
    return world.run(trace)
