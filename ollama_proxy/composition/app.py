"""Build the application around the pools: what serves requests, and the routes."""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from aiohttp import web

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.composition.access import (
    CLOSED_DOOR,
    Access,
    Door,
    build_access,
)
from ollama_proxy.composition.backend import place_name
from ollama_proxy.composition.fleet import Fleet, build_fleet
from ollama_proxy.composition.gateway import (
    Gateway,
    build_gateway,
    end_with_keys,
    open_keys,
)
from ollama_proxy.composition.own_routes import own_routes
from ollama_proxy.composition.parts import PARTS, Parts, release_waiting, running
from ollama_proxy.composition.pool_services import PoolServicesBuilder
from ollama_proxy.composition.pools import Shared
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.ollama.routes import known_paths
from ollama_proxy.fleet.backend import Backend
from ollama_proxy.fleet.neighbours import Neighbours
from ollama_proxy.fleet.redeployment import Redeployment
from ollama_proxy.server.access import AccessRule, Identify
from ollama_proxy.server.aiohttp.dispatcher import Dispatcher, application
from ollama_proxy.server.aiohttp.large_heads import close_after_large_head
from ollama_proxy.server.aiohttp.middlewares import add_cors_headers, surround
from ollama_proxy.server.aiohttp.ollama import OllamaHandler
from ollama_proxy.server.aiohttp.request import note_begun
from ollama_proxy.server.aiohttp.request_body import invite_later
from ollama_proxy.server.aiohttp.response import strip_own_headers
from ollama_proxy.server.aiohttp.upgrades import close_after_declined_upgrade
from ollama_proxy.server.fast.handler import FastPath
from ollama_proxy.server.listener import Runner
from ollama_proxy.serving.active_requests import ActiveRequests
from ollama_proxy.serving.body_budget import BodyBudget
from ollama_proxy.serving.foresight import PoolForesight
from ollama_proxy.serving.hold_policy import HoldPolicy
from ollama_proxy.serving.key_endings import KeyEndings
from ollama_proxy.serving.model_lists import ModelLists
from ollama_proxy.serving.pool_map import PoolMap
from ollama_proxy.serving.ready_watch import ReadyWatch
from ollama_proxy.serving.relay import Services
from ollama_proxy.serving.status import Described
from ollama_proxy.store.ports import Store
from ollama_proxy.upstream.connection_pool import dial_nothing

if TYPE_CHECKING:
    from ollama_proxy.composition.hub import Hub, HubBuilder

_MAX_HEADER = 1024 * 1024
_HUB = "ollama_proxy.composition.hub"


def build_app(
    settings: Settings,
    *,
    clock: Clock,
    store: Store,
    backends: Mapping[str, Backend],
    rng: random.Random,
    hold: HoldPolicy | None = None,
    door: Door = CLOSED_DOOR,
    access_rules: Sequence[AccessRule] = (),
    identify: Identify | None = None,
    neighbours: Neighbours | None = None,
    certificate: Described | None = None,
    timing: Timing = STANDARD,
) -> web.Application:
    """Return the application; nothing in it is global, and nothing runs yet.

    Call it in a running event loop, which the client sessions need. ``hold``: how
    requests wait, if not as the settings say. ``door``: how the proxy is reached.
    ``access_rules``: additional checks of each request.
    ``identify``: tells the caller of a request, or refuses it, instead of the keys.
    ``certificate``: what clients on TLS get, for ``/status``.
    ``timing``: pauses and time-outs that no setting changes.
    """
    keys = open_keys(settings, store, clock)
    builder = _hub_builder(settings)
    fleet = build_fleet(
        settings,
        clock=clock,
        store=store,
        backends=backends,
        rng=rng,
        timing=timing,
        dial=builder.tunnels.dial if builder is not None else dial_nothing,
    )
    pools = PoolServicesBuilder(fleet, neighbours=neighbours, hold=hold).build_all()
    used = fleet.shared.metrics.keys
    gateway = build_gateway(
        settings, store, clock, keys, observe=used.observe, timing=timing
    )
    used.watch(gateway.usage.unwritten)
    foresight = PoolForesight(pools, fleet.shared.estimates)
    foresight.watch(gateway.limits.spending)
    services = _services(fleet.shared, pools, gateway)
    access = build_access(
        settings,
        gateway.keyring,
        clock=clock,
        door=door,
        rules=access_rules,
        identify=identify,
        sessions=gateway.sessions,
        note_keyless=gateway.clients.note,
        note_refused=gateway.usage.refuse,
    )
    dispatcher = Dispatcher()
    app = application(dispatcher, [surround(services, access.control)])
    end_with_keys(gateway.keyring, KeyEndings(services.active, pools))
    hub = None
    if builder is not None:
        keyring, audit = gateway.keyring, gateway.audit
        hub = builder.build(fleet, keyring, audit, door)
        app.add_routes(hub.routes(services, timing))
    app[PARTS] = _parts(fleet, services, access, gateway, foresight, hub)
    app.add_routes(
        own_routes(
            fleet, services, app[PARTS], neighbours=neighbours, certificate=certificate
        )
    )
    _add_ollama_routes(dispatcher, OllamaHandler(services))
    app.on_response_prepare.append(_before_head)
    app.on_shutdown.append(release_waiting)
    app.cleanup_ctx.append(running(stop_on_exit=settings.stop_on_exit))
    return app


def _hub_builder(settings: Settings) -> "HubBuilder | None":
    """Return what builds the hub; only then are its modules imported."""
    if not settings.hub:
        return None
    builder: HubBuilder = import_module(_HUB).HubBuilder()
    return builder


def _services(shared: Shared, pools: PoolMap, gateway: Gateway) -> Services:
    """Return what serves the requests of all pools."""
    return Services(
        pools=pools,
        lists=ModelLists(pools, shared.relay),
        relay=shared.relay,
        mark=shared.mark,
        budget=BodyBudget(shared.settings.max_waiting_bytes),
        metrics=shared.metrics,
        active=ActiveRequests(),
        limits=gateway.limits,
        usage=gateway.usage,
        clock=shared.clock,
        stall_s=shared.settings.stall_timeout,
        node_timeout_s=shared.settings.node_request_timeout,
    )


def _parts(
    fleet: Fleet,
    services: Services,
    access: Access,
    gateway: Gateway,
    foresight: PoolForesight,
    hub: "Hub | None",
) -> Parts:
    """Return what runs from the application's start to its end."""
    shared, fast_path = fleet.shared, None
    if shared.settings.fast_path:
        beats = hub.fast_beats(shared.clock) if hub is not None else None
        fast_path = FastPath(
            services, access=access.control, clock=shared.clock, beats=beats
        )
    return Parts(
        pools=services.pools,
        active=services.active,
        metrics=services.metrics,
        budget=services.budget,
        relay=shared.relay,
        probing=shared.probing,
        fast_path=fast_path,
        redeployment=Redeployment(
            [one.pool for one in services.pools],
            redeployed=partial(_go_by_place, services.pools, fleet),
        ),
        access=access,
        ready=ReadyWatch(services.pools),
        gateway=gateway,
        foresight=foresight,
        hub=hub,
    )


def _add_ollama_routes(dispatcher: Dispatcher, handler: OllamaHandler) -> None:
    """Have every path but our own go to Ollama's handler."""
    for path in known_paths():  # faster than the route for any path
        dispatcher.add_route("*", path, handler.handle, expect_handler=invite_later)
    dispatcher.add_any_path(handler.handle, expect_handler=invite_later)


async def _before_head(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """See to the headers of an answer when it begins: one signal for all of it."""
    note_begun(request)
    close_after_large_head(request, response)
    close_after_declined_upgrade(request, response)
    strip_own_headers(response)
    add_cors_headers(request, response)


def _go_by_place(pools: PoolMap, fleet: Fleet) -> None:
    """Switch to the known models of each backend's present place."""
    for services in pools:
        offer = fleet.pools[services.name].offer
        services.go_by_place(place_name(services.name, offer.name, offer.backend))


def open_runner(app: web.Application, *, drain_timeout_s: float) -> Runner:
    """Return the server: no decompression, large headers, cancellation on disconnect.

    Headers may have 1 MB in all, as in Go's server.
    """
    return Runner(
        app,
        app[PARTS].fast_path,
        drain_timeout_s=drain_timeout_s,
        handler_cancellation=True,
        auto_decompress=False,
        access_log=None,
        tcp_keepalive=False,  # the runner sets it, with Go's intervals
        lingering_time=2.0,
        max_line_size=_MAX_HEADER,
        max_field_size=_MAX_HEADER,
        max_headers=10_000,
    )
