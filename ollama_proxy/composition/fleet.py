"""Build what knows instances: the pools, and the parts that these stand on."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import aiohttp

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.tcp_keep_alive import kept_alive_socket
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.composition.pools import PoolBuilder, PoolParts, Shared
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.estimates import Estimates
from ollama_proxy.core.lifecycle.stage_estimates import StageEstimates
from ollama_proxy.fleet.backend import Backend
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.serving.offer_status import state_of
from ollama_proxy.store.ports import Store
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.connection_pool import Dial, dial_nothing
from ollama_proxy.upstream.loop_mark import LoopMark


@dataclass(frozen=True, slots=True)
class Fleet:
    """Holds the pools by name in their order, and what all of them share."""

    pools: Mapping[str, PoolParts]
    shared: Shared

    @property
    def first(self) -> PoolParts:
        """Return the pool that comes first in the settings."""
        return next(iter(self.pools.values()))


def build_fleet(
    settings: Settings,
    *,
    clock: Clock,
    store: Store,
    backends: Mapping[str, Backend],
    rng: random.Random,
    timing: Timing = STANDARD,
    dial: Dial = dial_nothing,
) -> Fleet:
    """Build every pool of the settings; nothing runs yet. ``backends``: by offer.

    ``dial``: takes tunnels of nodes into use.
    """
    probing = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=kept_alive_socket),
        timeout=aiohttp.ClientTimeout(total=None),
    )
    mark, metrics = LoopMark(store.owner_id), Metrics()
    shared = Shared(
        settings=settings,
        clock=clock,
        store=store,
        rng=rng,
        probing=probing,
        relay=UpstreamClient(mark, timing, dial=dial),
        mark=mark,
        metrics=metrics,
        estimates=Estimates(store),
        stages=StageEstimates(store.stages),
        timing=timing,
    )
    for offer in settings.offers:
        metrics.watch_stages(offer.name)
    builder = PoolBuilder(shared, backends)
    pools = {spec.name: builder.build(spec) for spec in settings.pools}
    _watch(metrics, [parts.pool for parts in pools.values()])
    for name, parts in pools.items():
        _watch_pool(metrics, name, parts)
    return Fleet(pools, shared)


def _watch(metrics: Metrics, pools: list[Pool]) -> None:
    """Have gauges tell what goes on in all pools together."""
    metrics.watch(
        in_flight=lambda: sum(pool.in_flight for pool in pools),
        waiting=lambda: sum(pool.waiting for pool in pools),
        ready=lambda: sum(pool.ready_count for pool in pools),
    )


def _watch_pool(metrics: Metrics, name: str, parts: PoolParts) -> None:
    """Have gauges tell what goes on in one pool, and counters how launches end."""
    pool = parts.pool
    metrics.pools.watch_pool(
        name,
        {
            "requests_in_flight": lambda: pool.in_flight,
            "requests_waiting": lambda: pool.waiting,
            "instances_ready": lambda: pool.ready_count,
            "instances_wanted": lambda: pool.plan()[0].wanted,
        },
    )
    for house in pool.houses:
        metrics.pools.watch_house(name, house)
    for offer in parts.offers:
        metrics.pools.watch_offer(name, offer.name, partial(_is_in, pool, offer.name))
    for controller in pool.controllers:
        controller.subscribe(
            partial(metrics.pools.on_launch, name, controller.offer.name)
        )


def _is_in(pool: Pool, offer: str, state: str) -> bool:
    """Tell whether an offer is open, passed over or off."""
    return state_of(pool.obstacles().get(offer)) == state
