"""Build the application around the pools: what serves requests, and the routes."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import aiohttp
from aiohttp import web

from ollama_proxy.base.clock import Clock, date_of
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.composition.fleet import Fleet, build_fleet
from ollama_proxy.config.policies import needs_without_wake, wake_rule_of
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.access.cors import CorsPolicy
from ollama_proxy.core.access.hosts import HostPolicy
from ollama_proxy.core.ollama.catalog import Catalog
from ollama_proxy.core.ollama.routes import known_paths
from ollama_proxy.fleet.backend import (
    Backend,
    SupportsModelListing,
    place_of,
)
from ollama_proxy.fleet.neighbours import Neighbours
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.redeployment import Redeployment
from ollama_proxy.server.access import AccessControl, AccessRule
from ollama_proxy.server.admin.handlers import AdminHandlers
from ollama_proxy.server.aiohttp.dispatcher import Dispatcher, application
from ollama_proxy.server.aiohttp.large_heads import close_after_large_head
from ollama_proxy.server.aiohttp.middlewares import add_cors_headers, surround
from ollama_proxy.server.aiohttp.ollama import OllamaHandler
from ollama_proxy.server.aiohttp.request import note_begun
from ollama_proxy.server.aiohttp.request_body import invite_later
from ollama_proxy.server.aiohttp.response import strip_own_headers
from ollama_proxy.server.fast.handler import FastPath
from ollama_proxy.server.listener import Runner
from ollama_proxy.serving.body_budget import BodyBudget
from ollama_proxy.serving.catalog_refresher import CatalogRefresher
from ollama_proxy.serving.cold_answers import ColdAnswers
from ollama_proxy.serving.extra_routes import ExtraRoutes
from ollama_proxy.serving.fleet_view import FleetView
from ollama_proxy.serving.hold_policy import HoldPolicy
from ollama_proxy.serving.idle_ignores import IdleIgnores
from ollama_proxy.serving.lesson_book import LessonBook
from ollama_proxy.serving.model_changes import ModelChanges
from ollama_proxy.serving.own_replies import OwnReplies
from ollama_proxy.serving.relay import Services
from ollama_proxy.serving.shared_pulls import MOST_DETACHED, Pulls
from ollama_proxy.serving.status import Status
from ollama_proxy.serving.unknown_models import UnknownModels
from ollama_proxy.store.ports import Place, Store
from ollama_proxy.upstream.client import UpstreamClient

_STOP_ON_EXIT_S = 30.0
_MAX_HEADER = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Parts:
    """Holds the long-lived parts of a running proxy."""

    pool: Pool
    keeper: CatalogRefresher
    pulls: Pulls
    relay: UpstreamClient
    probing: aiohttp.ClientSession
    fast_path: FastPath | None
    book: LessonBook
    redeployment: Redeployment


PARTS = web.AppKey("parts", Parts)


def build_app(
    settings: Settings,
    *,
    clock: Clock,
    store: Store,
    backend: Backend,
    rng: random.Random,
    hold: HoldPolicy | None = None,
    hosts: HostPolicy | None = None,
    access_rules: Sequence[AccessRule] = (),
    neighbours: Neighbours | None = None,
    timing: Timing = STANDARD,
) -> web.Application:
    """Return the application; nothing in it is global, and nothing runs yet.

    Call it in a running event loop, which the client sessions need. ``hold``: how
    requests wait, if not as the settings say. ``hosts``: the rules for ``Host`` if the
    proxy listens on loopback only. ``access_rules``: additional checks of each request.
    ``timing``: pauses and time-outs that no setting changes.
    """
    fleet = build_fleet(
        settings, clock=clock, store=store, backend=backend, rng=rng, timing=timing
    )
    pool, metrics = fleet.pool, fleet.metrics
    most = MOST_DETACHED if settings.detached_pulls else 0
    pulls = Pulls(fleet.relay, clock=clock, stall_s=settings.stall_timeout, most=most)
    known = _build_known(settings, fleet, pulls, clock=clock, store=store)
    changes = ModelChanges(
        pool=pool,
        relay=fleet.relay,
        pulls=pulls,
        sticky=fleet.restored,
        changed=known.keeper.models_changed,
    )
    status = Status(
        pool=pool,
        estimates=fleet.estimates,
        clock=clock,
        rng=rng,
        models=tuple(fleet.offer.models),
        backend=fleet.offer.name,
        pulls=pulls,
        sticky=fleet.restored,
        backend_reason=settings.selection.reason,
        disk=store,
        gpu=fleet.gpu,
        stage_estimates=fleet.stages,
        neighbours=neighbours,
    )
    hold = hold or HoldPolicy(settings.hold, settings.max_hold)
    services = _build_services(settings, fleet, known, status, hold, clock)
    access = AccessControl(CorsPolicy(settings.origins), hosts, access_rules)
    fast_path = (
        FastPath(services, access=access, clock=clock) if settings.fast_path else None
    )
    dispatcher = Dispatcher()
    app = application(dispatcher, [surround(metrics, access)])
    app[PARTS] = Parts(
        pool,
        known.keeper,
        pulls,
        fleet.relay,
        fleet.probing,
        fast_path,
        known.book,
        Redeployment(pool, redeployed=partial(_go_by_place, fleet.offer, known)),
    )
    own = AdminHandlers(
        pool=pool, status=status, metrics=metrics, journal=store, pulls=pulls
    )
    app.add_routes(own.routes())
    _add_ollama_routes(dispatcher, OllamaHandler(services, changes))
    app.on_response_prepare.append(_before_head)
    app.on_shutdown.append(_release_waiting)
    app.cleanup_ctx.append(_running(stop_on_exit=settings.stop_on_exit))
    return app


@dataclass(frozen=True, slots=True)
class _Known:
    """Holds what is known of models while nothing runs, and what refreshes it."""

    place: Place
    catalogue: Catalog
    book: LessonBook
    unknown: UnknownModels
    keeper: CatalogRefresher


def _build_known(
    settings: Settings, fleet: Fleet, pulls: Pulls, *, clock: Clock, store: Store
) -> _Known:
    backend, restored = fleet.offer.backend, fleet.restored
    place = store.place(place_of(fleet.offer.name, backend.traits))
    catalogue = Catalog(
        fleet.offer.models,
        version=settings.asleep_version,
        since=partial(date_of, clock, clock.now()),
        contents=place.contents(),
        restored=restored,
        stock=backend if isinstance(backend, SupportsModelListing) else None,
    )
    book = LessonBook(place, clock)

    def being_fetched() -> list[str]:
        named = [pull.request.model_name for pull in pulls.under_way()]
        return named + (restored.hoped_for() if restored is not None else [])

    unknown = UnknownModels(
        wake_rule_of(settings, backend.traits),
        listing=catalogue,
        launches=fleet.pool,
        book=book,
        clock=clock,
        starts_empty=backend.traits.starts_empty,
        also_known=being_fetched,
    )
    keeper = CatalogRefresher(
        fleet.pool,
        probe=fleet.probe,
        catalogue=catalogue,
        place=place,
        asking=unknown.list_asked,
        timing=fleet.timing,
    )
    return _Known(place, catalogue, book, unknown, keeper)


def _build_services(
    settings: Settings,
    fleet: Fleet,
    known: _Known,
    status: Status,
    hold: HoldPolicy,
    clock: Clock,
) -> Services:
    catalogue = known.catalogue
    return Services(
        pool=fleet.pool,
        fleet=FleetView(
            fleet.pool,
            known.unknown,
            IdleIgnores(settings.idle_ignores),
            needs_without_wake(settings, fleet.offer.backend.traits),
            lambda: catalogue.last_version,
        ),
        relay=fleet.relay,
        mark=fleet.mark,
        replies=OwnReplies(ColdAnswers(catalogue), status, fleet.mark, clock),
        unknown=known.unknown,
        budget=BodyBudget(settings.max_waiting_bytes),
        hold=hold,
        metrics=fleet.metrics,
        extra_routes=ExtraRoutes(
            settings.extra_routes, known.book, lambda: catalogue.last_version
        ),
        stall_s=settings.stall_timeout,
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
    strip_own_headers(response)
    add_cors_headers(request, response)


def _go_by_place(offer: Offer, known: _Known) -> None:
    """Go by what is known of the models where they are from now on."""
    name = place_of(offer.name, offer.backend.traits)
    if name != known.place.name:
        known.book.close()
        known.place.name = name
        known.book.reread()
        known.catalogue.begin_with(known.place.contents())


async def _release_waiting(app: web.Application) -> None:
    """Wake nothing more, and tell waiting requests that they wait in vain."""
    app[PARTS].pool.stop_admitting()


def _running(*, stop_on_exit: bool) -> Callable[[web.Application], AsyncIterator[None]]:
    async def run(app: web.Application) -> AsyncIterator[None]:
        parts = app[PARTS]
        parts.pool.start()
        parts.keeper.start()
        yield
        await parts.keeper.aclose()
        parts.book.close()
        await parts.pulls.aclose()
        await parts.pool.stop_on_exit(everything=stop_on_exit, limit_s=_STOP_ON_EXIT_S)
        await parts.pool.aclose()
        await parts.relay.aclose()
        await parts.probing.close()

    return run


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
