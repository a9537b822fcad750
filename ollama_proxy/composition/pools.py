"""Build one pool after the other: its slots, and a controller for each offer there."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import aiohttp

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.timing import Timing
from ollama_proxy.composition.backend import offers_of
from ollama_proxy.config.policies import policy_of
from ollama_proxy.config.pools import PoolSpec, groups_of
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.estimates import Estimates
from ollama_proxy.core.lifecycle.record import Record, State
from ollama_proxy.core.lifecycle.stage_estimates import StageEstimates
from ollama_proxy.core.nodes.labels import Labels
from ollama_proxy.core.ollama.load_wish import LoadWishes
from ollama_proxy.core.slot_keys import SlotKey
from ollama_proxy.fleet.backend import Backend
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.gpu_use import GpuLook
from ollama_proxy.fleet.house import House
from ollama_proxy.fleet.node_use import NodeUses
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.pool_slot import PoolSlot
from ollama_proxy.fleet.readiness import HttpProbe
from ollama_proxy.fleet.restored_models import RestoredModels
from ollama_proxy.fleet.stage_report import StageReport
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.store.ports import Store
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.loop_mark import LoopMark


@dataclass(frozen=True, slots=True)
class PoolParts:
    """Holds a pool, and what belongs to its instances alone.

    - ``offers``: in order of preference, without those of nodes unless there are only
      these. ``probes``, ``gpus``: by the name of an offer.
    - ``restored``: None if models that clients pulled are not pulled again.
    """

    pool: Pool
    offers: Sequence[Offer]
    probes: Mapping[str, HttpProbe]
    restored: RestoredModels | None
    gpus: Mapping[str, GpuLook]

    @property
    def offer(self) -> Offer:
        """Return the offer that is tried first."""
        return self.offers[0]


@dataclass(frozen=True, slots=True)
class Shared:
    """Holds what all pools have in common."""

    settings: Settings
    clock: Clock
    store: Store
    rng: random.Random
    probing: aiohttp.ClientSession
    relay: UpstreamClient
    mark: LoopMark
    metrics: Metrics
    estimates: Estimates
    stages: StageEstimates
    timing: Timing


@dataclass(frozen=True, slots=True)
class PoolBuilder:
    """Builds one pool after the other; nothing runs yet.

    ``backends``: by offer. ``uses``: what the nodes of several pools work at.
    """

    shared: Shared
    backends: Mapping[str, Backend]
    uses: NodeUses = field(default_factory=NodeUses)

    def build(self, spec: PoolSpec) -> PoolParts:
        """Build the pool that the settings specify."""
        shared = self.shared
        every = offers_of(spec, shared.settings, self.backends)
        houses = [self._house(one) for one in every if _has_nodes(one)]
        offers = tuple(one for one in every if not _has_nodes(one)) or every
        restored, wishes = self._restored(spec, offers), LoadWishes()
        check = shared.settings.gpu_check
        gpus = {one.name: GpuLook(check, one.backend.traits.gpus) for one in offers}
        probes = {
            one.name: self._probe(one, restored, wishes, gpus[one.name])
            for one in offers
        }
        pool = Pool(
            self._slots(spec, offers, probes),
            name=spec.name,
            boots=shared.estimates,
            store=shared.store,
            clock=shared.clock,
            max_waiting=shared.settings.max_waiting,
            policy=spec.policy,
            load_wishes=wishes,
            timing=shared.timing,
            houses=houses,
            rng=shared.rng,
        )
        if restored is not None:
            restored.has_ready = pool.has_ready
        for controller in pool.controllers:  # after the pool, which cuts leases
            controller.subscribe(partial(_forget_connections, shared.relay))
        return PoolParts(pool, offers, probes, restored, gpus)

    def _house(self, offer: Offer) -> House:
        labels = offer.backend.traits.node_labels or Labels()
        return House(offer, labels=labels, clock=self.shared.clock, uses=self.uses)

    def _restored(
        self, spec: PoolSpec, offers: Sequence[Offer]
    ) -> RestoredModels | None:
        """Return what is remembered of the models that are now those of a pool."""
        if not self.shared.settings.restore_models:
            return None
        models = dict.fromkeys(model for offer in offers for model in offer.models)
        restores = not all(one.backend.traits.persistent_models for one in offers)
        groups = groups_of(self.shared.settings.pools)
        return RestoredModels(
            self.shared.store,
            tuple(models),
            restores=restores,
            serves=lambda name: groups.group_of(name) == spec.name,
        )

    def _probe(
        self,
        offer: Offer,
        restored: RestoredModels | None,
        wishes: LoadWishes,
        gpu: GpuLook,
    ) -> HttpProbe:
        shared = self.shared
        if restored is not None and offer.backend.traits.persistent_models:
            restored = restored.without_restoring()
        return HttpProbe(
            shared.probing,
            restored,
            wishes,
            shared.mark,
            gpu,
            timing=shared.timing,
        )

    def _slots(
        self,
        spec: PoolSpec,
        offers: Sequence[Offer],
        probes: Mapping[str, HttpProbe],
    ) -> list[PoolSlot]:
        """Return a slot per instance of ours, before them one per server of others.

        Nodes have none.
        """

        def controller(offer: Offer, index: int) -> Controller:
            key = str(SlotKey(spec.name, index, offer.name))
            return self._controller(key, offer, probes[offer.name], spec)

        theirs = [one for one in offers if one.is_external and not _has_nodes(one)]
        ours = [one for one in offers if not one.is_external]
        most = spec.policy.max_instances if ours else 0
        return [
            *(PoolSlot(0, (controller(one, 0),)) for one in theirs),
            *(
                PoolSlot(index, tuple(controller(one, index) for one in ours))
                for index in range(most)
            ),
        ]

    def _controller(
        self, key: str, offer: Offer, probe: HttpProbe, spec: PoolSpec
    ) -> Controller:
        shared = self.shared
        policy = replace(
            policy_of(shared.settings), idle_timeout_s=spec.policy.idle_timeout_s
        )
        controller = Controller(
            key,
            offer,
            store=shared.store,
            launches=shared.estimates,
            probe=probe,
            clock=shared.clock,
            policy=policy,
            rng=shared.rng,
            timing=shared.timing,
        )
        controller.subscribe(shared.metrics.on_transition)
        report = StageReport(
            offer.name,
            controller.timeline,
            counts=shared.metrics,
            learner=shared.stages,
        )
        controller.subscribe(report.on_transition)
        return controller


def _has_nodes(offer: Offer) -> bool:
    return offer.backend.traits.registers_itself


def _forget_connections(relay: UpstreamClient, _before: Record, after: Record) -> None:
    """Keep no connection to an instance that is being stopped."""
    if after.state is State.STOPPING:
        relay.forget()
