"""The composition root: everything is built here, once, and handed its parts."""

import math
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import aiohttp
import msgspec
from aiohttp import web

from ollama_proxy.base.clock import Clock, date_of
from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.tcp_keep_alive import kept_alive_socket
from ollama_proxy.config.settings import Settings, backend_name
from ollama_proxy.core.access.cors import CorsPolicy
from ollama_proxy.core.access.hosts import HostPolicy
from ollama_proxy.core.lifecycle.estimates import Estimates
from ollama_proxy.core.lifecycle.record import Policy, Record, State
from ollama_proxy.core.ollama.catalog import Catalog
from ollama_proxy.core.ollama.load_wish import LoadWishes
from ollama_proxy.core.ollama.model_fate import WakeRule
from ollama_proxy.core.ollama.routes import Need, known_paths
from ollama_proxy.core.ollama.suggested_model import SIMULATED_MODELS
from ollama_proxy.fleet.backend import (
    Backend,
    BackendContext,
    SupportsModelListing,
    place_of,
)
from ollama_proxy.fleet.backend_loader import load_backend
from ollama_proxy.fleet.controller import Controller, Offer
from ollama_proxy.fleet.gpu_use import GpuLook
from ollama_proxy.fleet.neighbours import Neighbours
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.readiness import HttpProbe
from ollama_proxy.fleet.redeployment import Redeployment
from ollama_proxy.fleet.reports import secrets_in
from ollama_proxy.fleet.restored_models import RestoredModels
from ollama_proxy.fleet.stage_report import StageReport
from ollama_proxy.server.access import AccessControl, AccessRule
from ollama_proxy.server.admin.handlers import AdminHandlers
from ollama_proxy.server.aiohttp.behind import refuse
from ollama_proxy.server.aiohttp.dispatcher import Dispatcher, application
from ollama_proxy.server.aiohttp.large_heads import close_after_large_head
from ollama_proxy.server.aiohttp.middlewares import (
    access_control,
    add_cors_headers,
    note_begun,
    observe,
    tell_errors,
)
from ollama_proxy.server.aiohttp.ollama import OllamaHandler
from ollama_proxy.server.fast.handler import FastPath
from ollama_proxy.server.listener import Runner
from ollama_proxy.serving.catalog_refresher import CatalogRefresher
from ollama_proxy.serving.cold_answers import ColdAnswers
from ollama_proxy.serving.extra_routes import ExtraRoutes
from ollama_proxy.serving.fleet_view import FleetView
from ollama_proxy.serving.hold import HoldPolicy
from ollama_proxy.serving.idle_ignores import IdleIgnores
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.serving.model_changes import ModelChanges
from ollama_proxy.serving.own_replies import OwnReplies
from ollama_proxy.serving.relay import Services
from ollama_proxy.serving.request_body import BodyBudget, invite_later
from ollama_proxy.serving.response_relay import strip_own_headers
from ollama_proxy.serving.shared_pulls import MOST_DETACHED, Pulls
from ollama_proxy.serving.status import Status
from ollama_proxy.serving.unknown_models import UnknownModels
from ollama_proxy.store.lessons import LessonBook
from ollama_proxy.store.places import Place
from ollama_proxy.store.sqlite import SLOT, Store
from ollama_proxy.store.stage_history import StageEstimates
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.loop_mark import LoopMark

_STOP_ON_EXIT_S = 30.0
_MAX_HEADER = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Parts:
    """The long-lived parts of a running proxy."""

    pool: Pool
    keeper: CatalogRefresher
    pulls: Pulls
    relay: UpstreamClient
    probing: aiohttp.ClientSession
    fast_path: FastPath | None
    book: LessonBook
    redeployment: Redeployment


PARTS = web.AppKey("parts", Parts)


def open_backend(settings: Settings, store: Store, clock: Clock) -> Backend:
    """Build the backend that the settings mean."""
    name = backend_name(settings)
    notes, folder = store.notes_of(name), settings.state_dir
    own = settings.of_backend
    context = BackendContext(
        store.owner_id,
        folder,
        notes,
        clock,
        {
            "models": settings.models,
            "max_lifetime": settings.max_lifetime,
            **settings.backend_options,
            **({name: own} if type(own).model_fields else {}),
        },
        store.remembers,
        os.environ,
    )
    factory = load_backend(name)
    try:
        backend = factory(context)
    except msgspec.DecodeError as error:
        raise StartupError(
            f"the notes of the backend {name!r} in {str(folder)!r} can't be read"
            f" ({error}); run the version that wrote them"
        ) from error
    traits = backend.traits
    store.claim(name, costs=not (traits.externally_managed or traits.child_process))
    return backend


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
) -> web.Application:
    """Return the application; nothing in it is global, nothing runs yet.

    To be called where an event loop runs, which the client sessions belong to.
    ``hold`` is how requests wait, if not as the settings and habit have it;
    ``hosts`` the rules for ``Host`` if it listens on loopback only; ``access_rules``
    are asked about each request besides.
    """
    models = settings.models
    if not models and backend.traits.simulated:
        models = SIMULATED_MODELS
    probing = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=kept_alive_socket),
        timeout=aiohttp.ClientTimeout(total=None),
    )
    sticky = (
        RestoredModels(store, models, restores=not backend.traits.persistent_models)
        if settings.restore_models
        else None
    )
    load_wishes = LoadWishes()
    mark = LoopMark(store.owner_id)
    gpu = GpuLook(settings.gpu_check, backend.traits.gpus)
    probe = HttpProbe(probing, sticky, load_wishes, mark, gpu)
    metrics, estimates = Metrics(), Estimates(store)
    offer = Offer(
        backend_name(settings),
        backend,
        models,
        _spec(settings),
        secrets_in([settings, *settings.of_backends.values()]),
    )
    controller = Controller(
        SLOT,
        offer,
        store=store,
        launches=estimates,
        probe=probe,
        clock=clock,
        policy=_policy(settings),
        rng=rng,
    )
    controller.subscribe(metrics.on_transition)
    metrics.watch_stages(offer.name)
    stage_estimates = StageEstimates(store.stages)
    report = StageReport(
        offer.name, controller.timeline, counts=metrics, learner=stage_estimates
    )
    controller.subscribe(report.on_transition)
    pool = Pool(
        [controller],
        store=store,
        clock=clock,
        max_waiting=settings.max_waiting,
        load_wishes=load_wishes,
    )
    metrics.watch(
        in_flight=lambda: pool.in_flight,
        waiting=lambda: pool.waiting,
        ready=lambda: pool.is_ready,
    )
    place = store.place(place_of(offer.name, backend.traits))
    catalogue = Catalog(
        models,
        version=settings.asleep_version,
        since=partial(date_of, clock, clock.now()),
        contents=place.contents(),
        restored=sticky,
        stock=backend if isinstance(backend, SupportsModelListing) else None,
    )
    relay = UpstreamClient(mark)
    controller.subscribe(partial(_forget_connections, relay))
    most = MOST_DETACHED if settings.detached_pulls else 0
    pulls = Pulls(relay, clock=clock, stall_s=settings.stall_timeout, most=most)
    book = LessonBook(place, clock)

    def being_fetched() -> list[str]:
        named = [pull.request.model_name for pull in pulls.under_way()]
        return named + (sticky.hoped_for() if sticky is not None else [])

    unknown = UnknownModels(
        _wake_rule(settings, backend),
        listing=catalogue,
        launches=pool,
        book=book,
        clock=clock,
        starts_empty=backend.traits.starts_empty,
        also_known=being_fetched,
    )
    keeper = CatalogRefresher(
        pool,
        probe=probe,
        catalogue=catalogue,
        place=place,
        refreshed=unknown.refreshed,
    )
    changes = ModelChanges(
        pool=pool,
        relay=relay,
        pulls=pulls,
        sticky=sticky,
        changed=keeper.models_changed,
    )
    status = Status(
        pool,
        estimates,
        clock,
        rng,
        models,
        offer.name,
        pulls,
        sticky,
        settings.selection.reason,
        store,
        gpu,
        stage_estimates,
        neighbours,
    )
    services = Services(
        pool=pool,
        fleet=FleetView(
            pool,
            unknown,
            IdleIgnores(settings.idle_ignores),
            _spared(settings, backend),
            lambda: catalogue.last_version,
        ),
        relay=relay,
        mark=mark,
        replies=OwnReplies(ColdAnswers(catalogue), status, mark, clock),
        unknown=unknown,
        budget=BodyBudget(settings.max_waiting_bytes),
        hold=hold or HoldPolicy(settings.hold, settings.max_hold),
        metrics=metrics,
        extra_routes=ExtraRoutes(
            settings.extra_routes, book, lambda: catalogue.last_version
        ),
        stall_s=settings.stall_timeout,
    )
    access = AccessControl(CorsPolicy(settings.origins), hosts, access_rules)
    fast_path = (
        FastPath(services, access=access, clock=clock) if settings.fast_path else None
    )
    handler = OllamaHandler(services, changes)
    dispatcher = Dispatcher()
    app = application(
        dispatcher,
        [
            refuse(metrics),
            observe(metrics),
            access_control(access),
            tell_errors,
        ],
    )
    app[PARTS] = Parts(
        pool,
        keeper,
        pulls,
        relay,
        probing,
        fast_path,
        book,
        Redeployment(
            pool, redeployed=partial(_go_by_place, offer, place, book, catalogue)
        ),
    )
    own = AdminHandlers(
        pool=pool, status=status, metrics=metrics, store=store, pulls=pulls
    )
    app.add_routes(own.routes())
    for path in known_paths():  # it is found sooner than any path
        dispatcher.add_route("*", path, handler.handle, expect_handler=invite_later)
    dispatcher.add_any_path(handler.handle, expect_handler=invite_later)
    app.on_response_prepare.append(_before_head)
    app.on_shutdown.append(_release_waiting)
    app.cleanup_ctx.append(_running(stop_on_exit=settings.stop_on_exit))
    return app


async def _before_head(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """See to the headers of an answer when it begins: one signal for all of it."""
    note_begun(request)
    close_after_large_head(request, response)
    strip_own_headers(response)
    add_cors_headers(request, response)


def _forget_connections(relay: UpstreamClient, _before: Record, after: Record) -> None:
    """Keep no connection to an instance that is being stopped."""
    if after.state is State.STOPPING:
        relay.forget()


def _go_by_place(
    offer: Offer, place: Place, book: LessonBook, catalogue: Catalog
) -> None:
    """Go by what is known of the models where they are from now on."""
    name = place_of(offer.name, offer.backend.traits)
    if name != place.name:
        book.close()
        place.name = name
        book.reread()
        catalogue.begin_with(place.contents())


def _spared(settings: Settings, backend: Backend) -> set[Need]:
    """Return which requests wake no instance, besides those that never do.

    A cloud model needs the key of its server, which a new disk does not have.
    """
    spared = set() if settings.loads_keep_awake else {Need.LOAD}
    return spared if backend.traits.persistent_models else spared | {Need.CLOUD}


def _spec(settings: Settings) -> object:
    """Return the settings from which the backend makes instances."""
    own = settings.of_backend
    return own if type(own).model_fields else settings.backend_options


def _wake_rule(settings: Settings, backend: Backend) -> WakeRule:
    """Return whether unknown models wake: a server that is there anyway may as well."""
    rule = WakeRule(settings.wake_for_unknown_models)
    is_free = backend.traits.externally_managed and rule is WakeRule.AUTO
    return WakeRule.TRUE if is_free else rule


def _policy(settings: Settings) -> Policy:
    return Policy(
        idle_timeout_s=settings.idle_timeout,
        start_timeout_s=settings.start_timeout,
        drain_timeout_s=settings.drain_timeout,
        backoff_s=settings.backoff,
        backoff_max_s=settings.max_backoff,
        failure_limit=settings.failure_limit,
        launch_limit=settings.launch_limit,
        max_lifetime_s=(
            math.inf if settings.max_lifetime is None else settings.max_lifetime
        ),
    )


async def _release_waiting(app: web.Application) -> None:
    """Wake nothing more, and tell those who wait that they wait in vain."""
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
    """Return the server: nothing decompressed, large headers, clients watched.

    Header lines may have what Go's server takes, 1 MB in all.
    """
    return Runner(
        app,
        app[PARTS].fast_path,
        drain_timeout_s=drain_timeout_s,
        handler_cancellation=True,
        auto_decompress=False,
        access_log=None,
        lingering_time=2.0,
        max_line_size=_MAX_HEADER,
        max_field_size=_MAX_HEADER,
        max_headers=10_000,
    )
