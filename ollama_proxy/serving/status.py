"""Describe the state of the proxy, for people and for programs: ``/status``."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ollama_proxy import __version__
from ollama_proxy.base.clock import Clock
from ollama_proxy.core.lifecycle.fault_words import detail_of, lockout_words
from ollama_proxy.core.lifecycle.launch_limit import recent
from ollama_proxy.core.lifecycle.record import Record, State
from ollama_proxy.core.ollama.error_bodies import ProvisioningStatus
from ollama_proxy.fleet.backend import SupportsPrices
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.neighbours import Neighbours
from ollama_proxy.fleet.stage_report import stages_body
from ollama_proxy.serving.pool_map import PoolMap
from ollama_proxy.serving.pool_status import Disk
from ollama_proxy.serving.pull import Pull
from ollama_proxy.serving.shared_pulls import AttachedPull

_PROVISIONING_STATUS = {
    State.COLD: "idle",
    State.STARTING: "provisioning",
    State.READY: "ready",
    State.DRAINING: "ready",
    State.STOPPING: "idle",
    State.COOLDOWN: "error",
}


class Described(Protocol):
    """Has something of its own for ``/status``."""

    def body(self) -> dict[str, Any]:
        """Return it."""


@dataclass(slots=True)
class Status:
    """Tells the state of the proxy; decides nothing and changes nothing.

    What is not in ``pools`` of the body is about the first pool.
    """

    pools: PoolMap
    clock: Clock
    backend: str
    backend_reason: str
    disk: Disk
    neighbours: Neighbours | None = None
    certificate: Described | None = None
    keys_file: Described | None = None
    access: Described | None = None
    hub: Described | None = None

    def body(self) -> dict[str, Any]:
        """Return the body of ``/status``."""
        first = self.pools.first
        told, pool = first.status, first.pool
        waiting = told.waiting()
        return {
            "service": "ollama-proxy",
            "version": __version__,
            "backend": self.backend,
            "backend_reason": self.backend_reason,
            **self._of_instance(told.foremost(), waiting),
            "stage": waiting.stage,
            "progress": waiting.progress,
            "elapsed_s": waiting.elapsed_s,
            "eta_s": waiting.eta_s if waiting.stage else None,
            "ollama_model": told.models[0] if told.models else None,
            "in_flight": pool.in_flight,
            "waiting": pool.waiting,
            "simulated": told.simulated,
            "pulls": [
                pull_body(pull)
                for services in self.pools
                for pull in services.pulls.under_way()
            ],
            "lost_models": self._lost_models(),
            "others": self.neighbours.others() if self.neighbours else [],
            "tls": self.certificate.body() if self.certificate else None,
            "access": self.access.body() if self.access else None,
            "hub": self.hub.body() if self.hub else None,
            "keys_file": self.keys_file.body() if self.keys_file else None,
            "pools": [services.status.body() for services in self.pools],
        }

    def _of_instance(
        self, controller: Controller | None, waiting: ProvisioningStatus
    ) -> dict[str, Any]:
        """Return what is known of the instance that is closest to serving.

        None: nodes serve, of which `pools` tells, or nothing does.
        """
        first = self.pools.first
        told, nodes = first.status, first.pool.nodes
        has_node = nodes is not None and nodes.has_ready_node(None)
        if controller is None:
            return _of_nodes(waiting, told.error(Record()), is_ready=has_node)
        record, traits = controller.record, controller.offer.backend.traits
        serves = record.state in {State.READY, State.DRAINING}
        is_asked = record.state not in {State.READY, State.COLD}
        status = self._provisioning_status(record, waiting)
        return {
            "provisioning_status": "ready" if has_node else status,
            "instance_status": record.state.value,
            "detail": _detail(controller, starting=waiting.stage is not None),
            "stages": stages_body(controller.timeline.spans(self.clock.now())),
            "instance_stages": stages_body(controller.timeline.guest),
            "retry_after": waiting.retry_after if is_asked else None,
            "remote_url": controller.upstream.url if controller.upstream else None,
            "zone": traits.location,
            "instance_type": traits.instance_type,
            "idle_timeout": _finite(controller.policy.idle_timeout_s),
            "idle_for_s": self._idle_for_s(record),
            "stops_in_s": self._stops_in_s(controller),
            "gpu": first.gpus[controller.offer.name].body() if serves else None,
            "driver": controller.driver or None,
            "price": _price(controller),
            "error": told.error(record),
            "report": controller.report or None,
            "launches_unserved": len(recent(record.paid_launches, self.clock.now())),
            "launch_limit": controller.policy.launch_limit,
            "lockout": self._lockout(record),
        }

    def _provisioning_status(self, record: Record, waiting: ProvisioningStatus) -> str:
        can_not_start = record.state is State.COLD and self.disk.problem is not None
        if waiting.status == "error" or can_not_start:
            return "error"
        if record.state is State.COOLDOWN:  # and another offer may be asked
            return "idle"
        return _PROVISIONING_STATUS[record.state]

    def _lockout(self, record: Record) -> dict[str, Any] | None:
        """Return why no request launches, and in how many seconds one may again."""
        lockout = record.lockout
        if lockout is None:
            return None
        now = self.clock.now()
        ends_in_s = None if lockout.until is None else max(0.0, lockout.until - now)
        return {
            "reason": lockout.reason,
            "message": lockout_words(lockout, now),
            "ends_in_s": None if ends_in_s is None else round(ends_in_s, 1),
        }

    def _lost_models(self) -> list[dict[str, Any]]:
        return [
            {"model": model.name, "reason": model.lost}
            for services in self.pools
            if services.restored is not None
            for model in services.restored.lost()
        ]

    def _idle_for_s(self, record: Record) -> float | None:
        if record.state is not State.READY or record.keeping:
            return None
        return round(max(0.0, self.clock.now() - record.last_used), 1)

    def _stops_in_s(self, controller: Controller) -> float | None:
        idle_s = self._idle_for_s(controller.record)
        limit_s = _finite(controller.policy.idle_timeout_s)
        if idle_s is None or limit_s is None:
            return None
        return round(max(0.0, limit_s - idle_s), 1)


def _of_nodes(
    waiting: ProvisioningStatus, error: str | None, *, is_ready: bool
) -> dict[str, Any]:
    """Return the same keys where nodes alone could serve."""
    unknown = dict.fromkeys(
        (
            "detail",
            "remote_url",
            "zone",
            "instance_type",
            "idle_timeout",
            "idle_for_s",
            "stops_in_s",
            "gpu",
            "driver",
            "price",
            "report",
            "launch_limit",
            "lockout",
        )
    )
    return {
        **unknown,
        "provisioning_status": "ready" if is_ready else "error",
        "instance_status": (State.READY if is_ready else State.COLD).value,
        "stages": stages_body(()),
        "instance_stages": stages_body(()),
        "retry_after": None if is_ready else waiting.retry_after,
        "error": error if is_ready else error or waiting.message,
        "launches_unserved": 0,
    }


def _price(controller: Controller) -> dict[str, float | None] | None:
    backend = controller.offer.backend
    return asdict(backend.prices) if isinstance(backend, SupportsPrices) else None


def _detail(controller: Controller, *, starting: bool) -> str | None:
    """Return what a launch is doing, or a notice about a ready instance."""
    if starting:
        return detail_of(controller.record.progress) or None
    told = dict.fromkeys(words for words in (controller.problem, controller.notice))
    return "; ".join(words for words in told if words) or None


def pull_body(pull: Pull | AttachedPull) -> dict[str, Any]:
    """Return how far a pull is; its fraction is that of the layer under way."""
    return {
        "model": pull.request.model_name,
        "status": pull.progress.status,
        "progress": pull.progress.fraction,
        "followers": pull.followers,
    }


def _finite(length_s: float) -> float | None:
    return length_s if length_s != float("inf") else None
