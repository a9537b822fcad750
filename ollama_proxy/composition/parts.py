"""Hold the long-lived parts of a running proxy: they start and end together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from ollama_proxy.base.tasks import scoped_task
from ollama_proxy.composition.access import Access
from ollama_proxy.composition.gateway import Gateway
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.redeployment import Redeployment
from ollama_proxy.server.fast.handler import FastPath
from ollama_proxy.serving.active_requests import ActiveRequests
from ollama_proxy.serving.body_budget import BodyBudget
from ollama_proxy.serving.foresight import PoolForesight
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.serving.pool_map import PoolMap
from ollama_proxy.serving.ready_watch import ReadyWatch
from ollama_proxy.serving.shared_pulls import Pulls
from ollama_proxy.upstream.client import UpstreamClient

if TYPE_CHECKING:
    from ollama_proxy.composition.hub import Hub

_STOP_ON_EXIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Parts:
    """Holds the long-lived parts of a running proxy."""

    pools: PoolMap
    active: ActiveRequests
    metrics: Metrics
    budget: BodyBudget
    relay: UpstreamClient
    probing: aiohttp.ClientSession
    fast_path: FastPath | None
    redeployment: Redeployment
    access: Access
    ready: ReadyWatch
    gateway: Gateway
    foresight: PoolForesight
    hub: "Hub | None"

    @property
    def pool(self) -> Pool:
        """Return the first pool."""
        return self.pools.first.pool

    @property
    def pulls(self) -> Pulls:
        """Return the pulls of the first pool."""
        return self.pools.first.pulls


PARTS = web.AppKey("parts", Parts)


async def release_waiting(app: web.Application) -> None:
    """Wake nothing more, and end waits for an instance, and tunnels without use."""
    app[PARTS].ready.release()
    if (hub := app[PARTS].hub) is not None:
        hub.tunnels.end()
    for services in app[PARTS].pools:
        services.pool.stop_admitting()


def running(*, stop_on_exit: bool) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return what runs the parts from the application's start to its end."""

    async def run(app: web.Application) -> AsyncIterator[None]:
        parts = app[PARTS]
        parts.gateway.start()
        for services in parts.pools:
            services.start()
        spending = parts.gateway.limits.spending
        parts.foresight.adopt(spending)
        if parts.hub is not None:
            parts.hub.start()
        async with scoped_task(spending.run(), name="spending"):
            yield
            if parts.hub is not None:
                await parts.hub.aclose()
            for services in parts.pools:
                await services.aclose()
            await parts.gateway.usage.aclose()
            await _end_pools(parts.pools, stop_on_exit=stop_on_exit)
        await parts.gateway.tasks.aclose()
        parts.gateway.usage.flush()
        parts.gateway.limits.close()
        await parts.relay.aclose()
        await parts.probing.close()

    return run


async def _end_pools(pools: PoolMap, *, stop_on_exit: bool) -> None:
    """Stop what ends with the proxy, in all pools at once, and let go of the rest."""
    stopping = (
        services.pool.stop_on_exit(everything=stop_on_exit, limit_s=_STOP_ON_EXIT_S)
        for services in pools
    )
    await asyncio.gather(*stopping)
    for services in pools:
        await services.pool.aclose()
