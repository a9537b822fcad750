"""Run the proxy as a process: bind, serve, and end in good order on a signal."""

import asyncio
import contextlib
import gc
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from ollama_proxy import __version__
from ollama_proxy.base import log
from ollama_proxy.base.clock import open_clock, this_machine
from ollama_proxy.base.fd_limit import raise_limit, requests_at_once
from ollama_proxy.base.parsers import replace_listen
from ollama_proxy.base.serving_address import written_down
from ollama_proxy.base.tasks import TaskOwner, scoped_task, start_task
from ollama_proxy.cli.announcement import OnTls, Serving
from ollama_proxy.cli.bound_addresses import (
    BoundAddresses,
    bind_all,
    hub_url,
    serving_metrics,
)
from ollama_proxy.cli.launch_plan import launch_plans
from ollama_proxy.cli.opened_certificate import open_certificate
from ollama_proxy.cli.own_upstream import refuse_own_upstream, warnings_of
from ollama_proxy.composition import PARTS, Door, build_app, open_backends, open_runner
from ollama_proxy.composition.backend import place_name
from ollama_proxy.composition.listening import listen_on
from ollama_proxy.config.pools import PoolSpec
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.access.keys import Caller
from ollama_proxy.core.ollama.suggested_model import suggest_model
from ollama_proxy.fleet.backend import Backend, SupportsModelListing
from ollama_proxy.fleet.neighbours import Neighbours
from ollama_proxy.gateway.exposure import Exposure
from ollama_proxy.gateway.order_token import make_order_token
from ollama_proxy.server.binding import BACKLOG
from ollama_proxy.server.control_socket import listening
from ollama_proxy.server.end_signals import EndSignals, has_controlling_terminal
from ollama_proxy.server.listener import Runner
from ollama_proxy.server.machine_hosts import hosts_of_this_machine
from ollama_proxy.server.tls.watch import ServerCertificate
from ollama_proxy.serving.date_watch import DateWatch
from ollama_proxy.store.opening import open_store
from ollama_proxy.store.ports import Places

if TYPE_CHECKING:
    from ollama_proxy.composition.hub import Hub

_FEW_REQUESTS = 1000
_COLLECT_AFTER = 10_000


async def serve(settings: Settings, announce: Callable[[Serving], None]) -> None:
    """Serve until a signal ends it; streams may finish, a second signal cuts them.

    ``announce`` is called before requests are accepted: nothing is bought unannounced.
    """
    await refuse_own_upstream(settings)
    certificate = open_certificate(settings, this_machine().wall)
    bound = bind_all(settings)
    try:
        store = open_store(settings.state_dir)
    except BaseException:
        bound.close()
        raise
    try:
        clock = open_clock(store)
        backends, watching = open_backends(settings, store, clock), TaskOwner()
        watching.spawn(DateWatch(clock, store).run(), name="date")
        neighbours = Neighbours(
            list(backends.values()),
            owner_id=store.owner_id,
            remembers=store.remembers,
            clock=clock,
        )
        try:
            app = build_app(
                settings,
                clock=clock,
                store=store,
                backends=backends,
                rng=random.Random(),  # noqa: S311 - spreads load, guards nothing
                door=_door(settings, bound),
                neighbours=neighbours,
                certificate=certificate,
            )
            tags = known_tags(settings.pools[0], store, backends)

            is_tls = certificate is not None

            def announce_all(serving: Serving) -> None:
                announce(
                    replace(
                        serving,
                        tls=_on_tls(settings, certificate),
                        warnings=(*serving.warnings, *_open_to_nodes(app[PARTS].hub)),
                        open_to=_open_to(exposure := app[PARTS].access.exposure),
                        needs_key=None if exposure.is_off else exposure.needs_key(),
                        state_dir=_given_folder(settings),
                        hub_url=hub_url(settings, bound, is_tls=is_tls),
                    )
                )

            def tell(settings: Settings, url: str) -> None:
                _tell(announce_all, backends, tags, settings, url)
                watching.spawn(neighbours.run(), name="neighbours")

            await _run(app, bound, settings, tell, certificate)
        finally:
            await watching.aclose()
            for backend in backends.values():
                await backend.aclose()
    finally:
        bound.close()
        store.close()


def _door(settings: Settings, bound: BoundAddresses) -> Door:
    """Return how the proxy is reached; its own commands find the order token.

    Where others can connect, any program may use any ``Host``, as with Ollama.
    """
    token = None
    try:
        token = make_order_token(settings.state_dir)
    except OSError as error:  # a full disk: requests are served all the same
        structlog.get_logger().warning(
            log.ORDERS_NEED_KEY,
            reason=f"the order token can't be written to {str(settings.state_dir)!r}"
            f" ({error.strerror or error}), so commands need a key with the right"
            " 'admin' in OLLAMA_PROXY_KEY; make room there and start again",
        )
    is_local = bound.are_local
    hosts = hosts_of_this_machine(settings.allowed_hosts) if is_local else None
    return Door(hosts, is_local, token, bound.listening)


def _open_to(exposure: Exposure) -> str:
    """Log and return what may be done without a key; "" if requests need one."""
    warning = exposure.warning()
    if warning is None:
        return ""
    structlog.get_logger().warning(log.ACCESS_OPEN, reason=warning)
    return warning


def _open_to_nodes(hub: "Hub | None") -> tuple[str, ...]:
    """Log and return what machines without a key may do; nothing if none register."""
    if hub is None or not (warning := hub.access.warning):
        return ()
    structlog.get_logger().warning(log.NODES_WITHOUT_KEY, reason=warning)
    return (warning,)


def _given_folder(settings: Settings) -> str:
    """Return the state folder if a command needs a setting to find it."""
    is_given = "state_dir" in settings.model_fields_set
    return str(settings.state_dir.absolute()) if is_given else ""


async def _run(
    app: web.Application,
    bound: BoundAddresses,
    settings: Settings,
    tell: Callable[[Settings, str], None],
    certificate: ServerCertificate | None,
) -> None:
    runner = open_runner(app, drain_timeout_s=settings.drain_timeout)
    signals = EndSignals(has_terminal=has_controlling_terminal())
    signals.watch(asyncio.get_running_loop())
    port = bound.main.getsockname()[1]
    listen = replace_listen(settings.listen, None, str(port))
    url = listen.over(is_tls=certificate is not None).url
    shown = certificate.loaded.own if certificate is not None else ""
    with written_down(settings.state_dir, url, shown) as write_down:
        tell(settings, url)
        await runner.setup()
        async with (
            _renewing(certificate, write_down),
            serving_metrics(bound, settings, app[PARTS].metrics.render),
            listening(
                settings.state_dir,
                app[PARTS].redeployment,
                note=partial(app[PARTS].gateway.audit.note, Caller("control.sock")),
            ) as control,
        ):
            try:
                await _listen(runner, bound, settings, certificate, app[PARTS].hub)
                _tune_gc()
                number = await signals.next()
                structlog.get_logger().info(log.PROXY_STOPPING, signal=number.name)
            finally:
                control.cancel()
                await _end(runner, signals)


async def _listen(
    runner: Runner,
    bound: BoundAddresses,
    settings: Settings,
    certificate: ServerCertificate | None,
    hub: "Hub | None",
) -> None:
    """Take requests on the proxy's address, and on the hub's if it has one."""
    await listen_on(
        runner,
        bound.main,
        bound.hub,
        certificate=certificate,
        hub=hub,
        backlog=BACKLOG,
    )
    if bound.hub is None or settings.hub_address is None:
        return
    url = hub_url(settings, bound, is_tls=certificate is not None)
    structlog.get_logger().info(log.HUB_SERVED, url=url)


@contextlib.asynccontextmanager
async def _renewing(
    certificate: ServerCertificate | None, write_down: Callable[[str], None]
) -> AsyncIterator[None]:
    """Read a certificate again when it is renewed, and let commands know it."""
    if certificate is None:
        yield
        return
    certificate.on_renewed = lambda loaded: write_down(loaded.own)
    async with scoped_task(certificate.run(), name="certificate"):
        yield


def _tell(
    announce: Callable[[Serving], None],
    backends: Mapping[str, Backend],
    tags: bytes | None,
    settings: Settings,
    url: str,
) -> None:
    """Log and announce what is served, and what the first request will start.

    ``tags``: the list of models that a person may try. The address is bound already, so
    the kernel queues early connections.
    """
    logger, plans = structlog.get_logger(), launch_plans(settings, backends)
    simulated = any(backend.traits.simulated for backend in backends.values())
    logger.info(
        log.PROXY_STARTED,
        version=__version__,
        url=url,
        **asdict(plans[0]),
        **({"offers": [plan.line for plan in plans]} if len(plans) > 1 else {}),
        requests_at_once=_raise_descriptors(),
    )
    for notice in settings.notices:
        logger.warning(log.SETTINGS_UNUSED, reason=notice)
    if settings.renamed:
        logger.warning(log.SETTINGS_RENAMED, reason="; ".join(settings.renamed))
    for warning in warnings_of(settings):
        logger.warning(log.UPSTREAM_UNSAFE, reason=warning)
    if simulated:
        logger.warning(log.SIMULATOR_USED, reason="answers come from the simulator")
    model = suggest_model(settings.models, tags, simulated=simulated)
    default, notices = settings.default_backend, settings.notices
    announce(Serving(url, model, simulated, plans, notices, default))


def _on_tls(settings: Settings, certificate: ServerCertificate | None) -> OnTls | None:
    """Return how clients on this machine call the proxy on TLS; None without it."""
    if certificate is None or settings.tls_cert is None:
        return None
    file, folder = settings.tls_cert.absolute(), settings.state_dir.absolute()
    return OnTls(certificate.loaded.host, str(file), str(folder))


def known_tags(
    pool: PoolSpec, store: Places, backends: Mapping[str, Backend]
) -> bytes | None:
    """Return a pool's list of models as far as it is known while nothing runs."""
    offer = pool.first_own.name
    backend = backends[offer]
    if isinstance(backend, SupportsModelListing):
        tags = backend.tags()
        if tags is not None:
            return tags
    contents = store.place(place_name(pool.name, offer, backend)).contents()
    return contents.tags if contents is not None else None


def _raise_descriptors() -> int | None:
    """Have as many descriptors as may be; return for how many requests they do."""
    descriptors = raise_limit()
    if descriptors is None:
        return None
    fit = requests_at_once(descriptors)
    if fit < _FEW_REQUESTS:
        structlog.get_logger().warning(
            log.FEW_DESCRIPTORS,
            descriptors=descriptors,
            reason=f"only {fit} requests fit at once; raise it with `ulimit -n`",
        )
    return fit


def _tune_gc() -> None:
    """Freeze objects that live as long as the process; have the collector run less."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])


async def _end(runner: Runner, signals: EndSignals) -> None:
    """Stop accepting, let streams end, then close; a second signal cuts them."""
    ending = start_task(runner.cleanup(), name="cleanup")
    async with scoped_task(signals.next(), name="second signal") as again:
        await asyncio.wait({ending, again}, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            runner.cut()
        await ending
