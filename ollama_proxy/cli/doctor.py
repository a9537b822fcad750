"""Examine a deployment without serving: for ``check``."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace

from ollama_proxy.base.clock import SystemClock, open_clock, this_machine
from ollama_proxy.base.errors import BackendError, StartupError
from ollama_proxy.base.moments import unset_date
from ollama_proxy.cli.bound_addresses import bind_all
from ollama_proxy.cli.launch_plan import LaunchPlan, launch_plans
from ollama_proxy.cli.opened_certificate import open_certificate
from ollama_proxy.cli.opened_offers import opened_backends
from ollama_proxy.cli.own_upstream import refuse_own_upstream, warnings_of
from ollama_proxy.composition.access import exposure, needs_key
from ollama_proxy.composition.backend import place_name
from ollama_proxy.composition.legacy import legacy_warning
from ollama_proxy.config.pools import OfferSpec, models_of
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.ollama.catalog import sizes_of
from ollama_proxy.fleet.backend import (
    Backend,
    Finding,
    SupportsCheck,
    SupportsOwners,
)
from ollama_proxy.fleet.model_room import room_findings
from ollama_proxy.fleet.owners import others, with_removal
from ollama_proxy.gateway.key_file import KeyFileError, read_key_file
from ollama_proxy.gateway.key_words import Dates
from ollama_proxy.server.binding import are_for_this_machine
from ollama_proxy.store.opening import open_store
from ollama_proxy.store.ports import Ownership, Places, Store


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything that `serve` would need; create nothing that costs."""
    findings = [
        *(Finding("settings", ok=True, detail=told) for told in settings.sentences),
        _address(settings),
        *_certificate(settings),
        *_keys_file(settings),
        *await _upstream(settings),
    ]
    findings += [
        Finding("settings of others", ok=True, detail=notice)
        for notice in settings.notices
    ]
    findings += [
        Finding("a former name", ok=True, detail=sentence, warns=True)
        for sentence in settings.renamed
    ]
    if (unset := unset_date(this_machine().wall())) is not None:
        findings.append(Finding("date", ok=False, detail=unset))
    try:
        store = open_store(settings.state_dir)
    except StartupError as error:
        return [*findings, Finding("state folder", ok=False, detail=str(error))]
    findings.append(Finding("state folder", ok=True, detail=str(settings.state_dir)))
    findings += [Finding("state", ok=False, detail=what) for what in store.damage]
    with closing(store):
        findings += _access(settings, store)
        findings += _nodes(settings, store)
        clock = open_clock(store)
        async with opened_backends(settings, store, clock) as backends:
            for plan, offer in zip(
                launch_plans(settings, backends), settings.offers, strict=True
            ):
                found = await _offer(settings, offer, plan, backends, store)
                findings += [_headed(offer, finding) for finding in found]
    return findings


async def _offer(
    settings: Settings,
    offer: OfferSpec,
    plan: LaunchPlan,
    backends: Mapping[str, Backend],
    store: Store,
) -> list[Finding]:
    """Examine what the launches of one offer would need."""
    backend = backends[offer.name]
    return [
        Finding("what is started", ok=True, detail=plan.sentence),
        *await _backend(backend),
        *await _others(backend, store),
        *room_findings(
            models_of(offer, settings.pools, settings.models),
            backend.traits,
            _sizes(settings, offer, backends, store),
        ),
    ]


def _sizes(
    settings: Settings,
    offer: OfferSpec,
    backends: Mapping[str, Backend],
    store: Places,
) -> dict[str, int]:
    """Return the sizes of models that pools with an offer know, in bytes."""
    known: dict[str, int] = {}
    for pool in settings.pools:
        if offer in pool.offers:
            first = pool.offers[0].name
            place = store.place(place_name(pool.name, first, backends[first]))
            known |= sizes_of(place.contents())
    return known


def _headed(offer: OfferSpec, finding: Finding) -> Finding:
    """Name the offer before what was found of it, if the settings have offers."""
    if not offer.place:
        return finding
    return replace(finding, subject=f"offer {offer.name}, {finding.subject}")


def _address(settings: Settings) -> Finding:
    try:
        bind_all(settings).close()
    except StartupError as error:
        return Finding("address", ok=False, detail=str(error))
    url = settings.listen.over(is_tls=settings.tls_cert is not None).url
    return Finding("address", ok=True, detail=url)


def _access(settings: Settings, store: Store) -> list[Finding]:
    """Tell what may be done without a key."""
    is_needed = needs_key(settings, store)
    try:
        is_local = are_for_this_machine(settings.listen, settings.hub_address)
    except StartupError:  # it is reported as the address
        return []
    told = exposure(settings, lambda: is_needed, is_local=is_local).warning()
    if told is None:
        return [Finding("access", ok=True, detail="requests need a key")]
    return [Finding("access", ok=True, detail=told, warns=True)]


def _nodes(settings: Settings, store: Store) -> list[Finding]:
    """Tell whether machines register without a key."""
    if not settings.hub:
        return []
    try:
        is_local = are_for_this_machine(settings.listen, settings.hub_address)
    except StartupError:  # it is reported as the address
        return []
    told = legacy_warning(settings, store, is_local=is_local)
    if not told:
        return [Finding("nodes", ok=True, detail="machines register by a key")]
    return [Finding("nodes", ok=True, detail=told, warns=True)]


def _certificate(settings: Settings) -> list[Finding]:
    """Tell whether the certificate can be served, and until when."""
    try:
        served = open_certificate(settings, this_machine().wall)
    except StartupError as error:
        return [Finding("certificate", ok=False, detail=str(error))]
    if served is None:
        return []
    until = f"valid until {served.body()['expires_at']}"
    return [Finding("certificate", ok=True, detail=until)]


def _keys_file(settings: Settings) -> list[Finding]:
    """Read the file of keys as the start does."""
    if settings.keys_file is None:
        return []
    dates = Dates(SystemClock(), is_of_file=True)
    try:
        found = read_key_file(settings.keys_file, dates)
    except KeyFileError as error:
        return [Finding("keys file", ok=False, detail=str(error))]
    told = [Finding("keys file", ok=True, detail=f"{len(found.keys)} keys")]
    if found.warning:
        told.append(Finding("keys file", ok=True, detail=found.warning, warns=True))
    return told


async def _upstream(settings: Settings) -> list[Finding]:
    """Tell of an upstream that is the proxy itself, or unsafe: both without asking."""
    try:
        await refuse_own_upstream(settings)
    except StartupError as error:
        return [Finding("upstream", ok=False, detail=str(error))]
    return [
        Finding("upstream, a warning", ok=True, detail=warning)
        for warning in warnings_of(settings)
    ]


async def _backend(backend: Backend) -> list[Finding]:
    found: list[Finding] = []
    try:
        if isinstance(backend, SupportsCheck):
            found = await backend.check()
        owned = str(len(await backend.owned()))
    except BackendError as error:
        return [*found, Finding("instances of ours", ok=False, detail=str(error))]
    return [*found, Finding("instances of ours", ok=True, detail=owned)]


async def _others(backend: Backend, store: Ownership) -> list[Finding]:
    """Tell what other deployments have in the same place, and how to remove it."""
    if not isinstance(backend, SupportsOwners):
        return []
    try:
        found = others(await backend.belongings(), store.owner_id)
    except BackendError as error:
        return [Finding("other owners", ok=False, detail=str(error))]
    now = this_machine().wall()
    return [
        Finding("another owner's", ok=True, detail=with_removal(one, now), warns=True)
        for one in found
    ]
