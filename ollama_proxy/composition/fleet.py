"""Build what knows instances: the pools, and the parts that these stand on."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import aiohttp

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.tcp_keep_alive import kept_alive_socket
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.composition.backend import offer_of
from ollama_proxy.config.policies import policy_of
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.estimates import Estimates
from ollama_proxy.core.lifecycle.record import Record, State
from ollama_proxy.core.lifecycle.stage_estimates import StageEstimates
from ollama_proxy.core.ollama.load_wish import LoadWishes
from ollama_proxy.core.slot_keys import SlotKey
from ollama_proxy.fleet.backend import Backend
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.gpu_use import GpuLook
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.pool_slot import slots_of
from ollama_proxy.fleet.readiness import HttpProbe
from ollama_proxy.fleet.restored_models import RestoredModels
from ollama_proxy.fleet.stage_report import StageReport
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.store.ports import Store
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.loop_mark import LoopMark

_DEFAULT = "default"
"""The one pool, of one instance at most, as yet."""


@dataclass(frozen=True, slots=True)
class PoolParts:
    """Holds a pool, and what belongs to its instances alone.

    ``offer`` is what is launched first. ``restored`` is None if models that clients
    pulled are not pulled again.
    """

    pool: Pool
    offer: Offer
    probe: HttpProbe
    restored: RestoredModels | None
    gpu: GpuLook


@dataclass(frozen=True, slots=True)
class Fleet:
    """Holds the pools by name in their order, and what all of them share."""

    pools: Mapping[str, PoolParts]
    probing: aiohttp.ClientSession
    relay: UpstreamClient
    mark: LoopMark
    metrics: Metrics
    estimates: Estimates
    stages: StageEstimates
    timing: Timing

    @property
    def first(self) -> PoolParts:
        """Return the pool that comes first in the settings."""
        return next(iter(self.pools.values()))


def build_fleet(
    settings: Settings,
    *,
    clock: Clock,
    store: Store,
    backend: Backend,
    rng: random.Random,
    timing: Timing = STANDARD,
) -> Fleet:
    """Build the pools in a loop; nothing runs yet."""
    offer, mark = offer_of(settings, backend), LoopMark(store.owner_id)
    probing = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=kept_alive_socket),
        timeout=aiohttp.ClientTimeout(total=None),
    )
    metrics, estimates = Metrics(), Estimates(store)
    stages, relay = StageEstimates(store.stages), UpstreamClient(mark, timing)
    metrics.watch_stages(offer.name)
    pools: dict[str, PoolParts] = {}
    for name, slots in {_DEFAULT: [str(SlotKey(_DEFAULT, 0, offer.name))]}.items():
        restored, load_wishes = _restored(settings, store, offer), LoadWishes()
        gpu = GpuLook(settings.gpu_check, backend.traits.gpus)
        probe = HttpProbe(probing, restored, load_wishes, mark, gpu, timing)
        controllers = [
            Controller(
                slot,
                offer,
                store=store,
                launches=estimates,
                probe=probe,
                clock=clock,
                policy=policy_of(settings),
                rng=rng,
                timing=timing,
            )
            for slot in slots
        ]
        for controller in controllers:
            controller.subscribe(metrics.on_transition)
            report = StageReport(
                offer.name, controller.timeline, counts=metrics, learner=stages
            )
            controller.subscribe(report.on_transition)
        pool = Pool(
            slots_of(controllers),
            store=store,
            clock=clock,
            max_waiting=settings.max_waiting,
            load_wishes=load_wishes,
            timing=timing,
        )
        pools[name] = PoolParts(pool, offer, probe, restored, gpu)
        for controller in controllers:
            controller.subscribe(partial(_forget_connections, relay))
    built = [parts.pool for parts in pools.values()]
    metrics.watch(
        in_flight=lambda: sum(pool.in_flight for pool in built),
        waiting=lambda: sum(pool.waiting for pool in built),
        ready=lambda: any(pool.is_ready for pool in built),
    )
    return Fleet(pools, probing, relay, mark, metrics, estimates, stages, timing)


def _restored(settings: Settings, store: Store, offer: Offer) -> RestoredModels | None:
    if not settings.restore_models:
        return None
    restores = not offer.backend.traits.persistent_models
    return RestoredModels(store, offer.models, restores=restores)


def _forget_connections(relay: UpstreamClient, _before: Record, after: Record) -> None:
    """Keep no connection to an instance that is being stopped."""
    if after.state is State.STOPPING:
        relay.forget()
