"""Say what is going on in one pool: the words of its 503s, and its part of ``/status``.

Decides nothing and changes nothing.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.lifecycle.boot_stages import stage_name
from ollama_proxy.core.lifecycle.estimates import (
    Estimates,
    overall_progress,
    remaining_s,
)
from ollama_proxy.core.lifecycle.fault_words import (
    detail_of,
    error_of,
    failure_words,
    is_error,
    starting_words,
)
from ollama_proxy.core.lifecycle.record import AT_REST, LaunchId, Record, State
from ollama_proxy.core.lifecycle.stage_estimates import StageEstimates
from ollama_proxy.core.obstacle_words import is_off, next_try_s, obstacle_words
from ollama_proxy.core.offer_choice import Obstacle
from ollama_proxy.core.ollama.error_bodies import ProvisioningStatus, retry_after_s
from ollama_proxy.core.waiting_order import SOMEBODY, Turn
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.neighbours import Neighbours
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.serving.node_status import (
    no_node_words,
    node_body,
    nodes_of,
    took_none_words,
)
from ollama_proxy.serving.offer_status import offers_body

_LONGEST_RETRY_S = 60.0
_BEAT_S = 30.0

_RANKS = {State.READY: 0, State.STARTING: 1, State.DRAINING: 2, State.STOPPING: 3}
_AT_REST = len(_RANKS)


class _CachedStatus(NamedTuple):
    """Holds the status text, cached for 100 ms as long as the record does not change.

    ``wait_s``: in how many seconds a retry is worthwhile; None if unknown. ``is_off``:
    nothing starts until somebody acts.
    """

    record: Record
    tenth: int
    waiting: ProvisioningStatus
    wait_s: float | None
    is_off: bool


class Disk(Protocol):
    """Tells whether the state could be written."""

    @property
    def problem(self) -> str | None:
        """Return why the last write failed, until one succeeds again."""


@dataclass(slots=True)
class PoolStatus:
    """Tells the state of a pool; decides nothing and changes nothing.

    ``models``: those that its instances are to have. ``serves``: the globs of the
    models whose requests it serves.
    """

    name: str
    pool: Pool
    models: tuple[str, ...]
    serves: tuple[str, ...]
    estimates: Estimates
    stage_estimates: StageEstimates
    clock: Clock
    rng: random.Random
    disk: Disk
    neighbours: Neighbours | None = None
    _last: _CachedStatus | None = None
    _furthest: dict[str, tuple[LaunchId | None, float]] = field(default_factory=dict)

    def waiting(
        self, problem: str | None = None, turn: Turn = SOMEBODY
    ) -> ProvisioningStatus:
        """Return why no instance can serve a request right now.

        ``problem``: the reason for this one request, if any. ``turn``: the line in
        which it would wait, for its place in the queue. Retry-After differs at
        random between requests, to spread the retries.
        """
        controller, tenth = self.foremost(), int(self.clock.now() * 10)
        if controller is None:
            return self._of_nodes(problem, turn)
        last = self._last
        if last is None or last.record is not controller.record or last.tenth != tenth:
            last = self._last = self._situation(controller, tenth)
        again: int | None = retry_after_s(last.wait_s, self.rng.random())
        retry_after = None if _needs_person(last) else again
        message = problem or last.waiting.message
        return last.waiting._replace(
            message=message,
            retry_after=retry_after,
            position=self.pool.next_position(turn),
        )

    def unwoken(self, turn: Turn = SOMEBODY) -> ProvisioningStatus:
        """Return why no instance is ready, for a request that may not wake one."""
        waiting, foremost = self.waiting(turn=turn), self.foremost()
        if foremost is None:
            return waiting
        state = foremost.record.state
        is_down = state in {State.COLD, State.DRAINING, State.STOPPING}
        if not is_down or waiting.status == "error":
            return waiting
        message = (
            "no instance is up; by OLLAMA_PROXY_IDLE_IGNORES this request wakes none"
        )
        return waiting._replace(status="idle", message=message, eta_s=None)

    def _of_nodes(self, problem: str | None, turn: Turn) -> ProvisioningStatus:
        """Return why no node serves a request: there is nothing else to ask."""
        is_ready, pool = self.pool.is_ready, self.pool
        words = took_none_words(pool) if is_ready else no_node_words(pool)
        return ProvisioningStatus(
            status="provisioning" if is_ready else "error",
            message=problem or words,
            stage=None,
            progress=None,
            elapsed_s=None,
            eta_s=None,
            retry_after=retry_after_s(_BEAT_S, self.rng.random()),
            position=self.pool.next_position(turn),
        )

    def _situation(self, controller: Controller, tenth: int) -> _CachedStatus:
        record, now = controller.record, self.clock.now()
        hindered = self._hindered(controller)
        failed = is_error(record) if hindered is None else bool(hindered)
        starting = record.state is State.STARTING
        elapsed_s = self._elapsed_s(record)
        eta_s = self._eta_s(controller, elapsed_s) if not failed else None
        wait_s = self._pause_s(record) if failed else eta_s
        if hindered:
            wait_s = max(1.0, next_try_s(hindered, now))
        words = obstacle_words(hindered, now) if hindered else ""
        locked = is_off(hindered) if hindered else record.lockout is not None
        waiting = ProvisioningStatus(
            status="error" if failed else "provisioning",
            message=words or self._message(controller, eta_s, failed=failed),
            stage=record.progress.stage.value if starting else None,
            progress=self._progress(controller),
            elapsed_s=elapsed_s,
            eta_s=round(eta_s, 1) if eta_s is not None else None,
            retry_after=None,
        )
        return _CachedStatus(record, tenth, waiting, wait_s, locked)

    def _hindered(self, controller: Controller) -> Mapping[str, Obstacle] | None:
        """Return why no offer is asked, if that is so; None: the record tells all.

        That is for a pool of several instances or offers that has none on its way: a
        failed launch is no failure of the pool while another offer may be asked.
        """
        if len(self.pool.controllers) == 1 or _rank(controller) < _AT_REST:
            return None
        found = self.pool.obstacles()
        own = [c for c in self.pool.controllers if not c.offer.is_external]
        if not own:
            return None
        return found if len(found) == len({c.offer.name for c in own}) else {}

    def _eta_s(self, controller: Controller, elapsed_s: float | None) -> float | None:
        """Return how long a launch still takes, by its stage if others had that one."""
        name, record = controller.offer.name, controller.record
        if record.state is State.STARTING:
            running_s = controller.timeline.running_s(self.clock.now())
            stage = stage_name(record.progress)
            by_stage = self.stage_estimates.remaining_s(name, stage, running_s)
            if by_stage is not None:
                return by_stage
        return remaining_s(self.estimates.total_s(name), elapsed_s or 0.0)

    def _pause_s(self, record: Record) -> float:
        """Return when it is worth asking again after a failed launch."""
        ends_at = record.retry_at
        if record.lockout is not None:
            ends_at = math.inf if record.lockout.until is None else record.lockout.until
        return max(1.0, ends_at - self.clock.now())

    def foremost(self) -> Controller | None:
        """Return the instance that is closest to serving; else what is asked next.

        None if that is a node, or if there is nothing else.
        """
        controllers, nodes = self.pool.controllers, self.pool.nodes
        if not controllers:
            return None
        if len(controllers) == 1 and nodes is None:
            return controllers[0]
        first = min(controllers, key=_rank)
        if _rank(first) < _AT_REST:
            return first
        if nodes is not None and nodes.has_ready_node(None):
            return None
        found = self.pool.obstacles()
        return min(controllers, key=lambda one: _delay(one, found))

    def _elapsed_s(self, record: Record) -> float | None:
        if record.state is not State.STARTING:
            return None
        return round(self.clock.now() - record.woken_at, 1)

    def _progress(self, controller: Controller) -> float | None:
        """Return how far a launch is; reported progress is never taken back."""
        record = controller.record
        elapsed_s = self._elapsed_s(record)
        if elapsed_s is None:
            return None
        total_s = self.estimates.total_s(controller.offer.name)
        at = overall_progress(record.progress, elapsed_s=elapsed_s, total_s=total_s)
        launch_id, told = self._furthest.get(controller.slot, (None, 0.0))
        at = max(at, told) if launch_id == record.launch_id else at
        self._furthest[controller.slot] = (record.launch_id, at)
        return at

    def _message(
        self, controller: Controller, eta_s: float | None, *, failed: bool
    ) -> str:
        record = controller.record
        if record.state is State.STOPPING and failed:
            return self.error(record) or "the instance can't be stopped"
        if failed and (record.fault or record.lockout):
            return failure_words(record, self.clock.now())
        left = "" if eta_s is None else f", about {eta_s:.0f} s left"
        kind = "simulated instance" if self.simulated else "instance"
        if record.state is State.STARTING:
            return f"the {kind} {starting_words(record.progress, left)}"
        if record.state in {State.STOPPING, State.DRAINING}:
            return f"the {kind} is stopping and starts again after that, please retry"
        if record.state is State.READY:
            return f"the {kind} did not take the request, please retry"
        return f"the {kind} is about to start, please retry"

    @property
    def simulated(self) -> bool:
        """Tell whether what answers is the stand-in and no model."""
        return any(c.offer.backend.traits.simulated for c in self.pool.controllers)

    def error(self, record: Record) -> str | None:
        """Return what is wrong with an instance, or with all that the proxy does."""
        copied = self.neighbours.problem if self.neighbours else None
        told = error_of(record, self.clock.now())
        words = (told, self.disk.problem, copied if copied != told else None)
        return "; ".join(said for said in words if said) or None

    def body(self) -> dict[str, Any]:
        """Return the entry of the pool in ``pools`` of ``/status``."""
        planned, words = self.pool.plan()
        now = self.clock.now()
        return {
            "name": self.name,
            "models": list(self.models),
            "serves": list(self.serves),
            "in_flight": self.pool.in_flight,
            "waiting": self.pool.waiting,
            "ready": self.pool.ready_count,
            "wanted": planned.wanted,
            "plan": list(words),
            "offers": offers_body(self.pool, now),
            "instances": [
                self._instance(one)
                for one in self.pool.controllers
                if len(self.pool.instances) == 1 or _is_telling(one.record)
            ]
            + [node_body(self.pool, node, now) for node in nodes_of(self.pool)],
        }

    def _instance(self, controller: Controller) -> dict[str, Any]:
        record, now = controller.record, self.clock.now()
        is_idle = record.state is State.READY and not record.keeping
        is_starting = record.state is State.STARTING
        idle_s = now - record.last_used if is_idle else None
        eta_s = (
            self._eta_s(controller, self._elapsed_s(record)) if is_starting else None
        )
        return {
            "slot": controller.slot,
            "offer": controller.offer.name,
            "backend": controller.offer.backend_name or controller.offer.name,
            "state": record.state.value,
            "stage": record.progress.stage.value if is_starting else None,
            "launch_id": record.launch_id,
            "url": controller.upstream.url if controller.upstream else None,
            "in_flight": record.leases,
            "slots": controller.offer.slots,
            "detail": (detail_of(record.progress) or None) if is_starting else None,
            "progress": self._progress(controller),
            "eta_s": round(eta_s, 1) if eta_s is not None else None,
            "idle_for_s": round(idle_s, 1) if idle_s is not None else None,
            "stops_in_s": _stops_in_s(controller, idle_s),
            "leaving": record.leaving,
            "failures": record.failures,
            "error": self.error(record),
            "report": controller.report or None,
        }


def _stops_in_s(controller: Controller, idle_s: float | None) -> float | None:
    """Return when an idle instance stops; None: it is used, or stays."""
    limit_s = controller.policy.idle_timeout_s
    if idle_s is None or math.isinf(limit_s) or controller.offer.is_external:
        return None
    return round(max(0.0, limit_s - idle_s), 1)


def _is_telling(record: Record) -> bool:
    """Tell whether a record of several is worth a look: a launch, or a failed one."""
    return record.state not in AT_REST or record.fault is not None


def _rank(controller: Controller) -> int:
    """Return how far an instance is from serving; a failed launch never does.

    One that can't be stopped comes before all that rest.
    """
    record = controller.record
    fails = record.leaving or (record.failed and record.stop_error is None)
    if record.state is State.STOPPING and fails:
        return _AT_REST
    return _RANKS.get(record.state, _AT_REST)


def _delay(controller: Controller, found: Mapping[str, Obstacle]) -> float:
    """Return when the offer of an instance at rest is asked: -inf is now."""
    if controller.offer.is_external:
        return math.inf
    one = found.get(controller.offer.name)
    if one is None:
        return -math.inf
    return math.inf if one.until is None else one.until


def _needs_person(situation: _CachedStatus) -> bool:
    """Tell whether asking again within a minute, as clients do, helps nothing."""
    return situation.is_off and (situation.wait_s or 0.0) > _LONGEST_RETRY_S
