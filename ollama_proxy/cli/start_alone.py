"""Start an instance while no proxy runs, for ``start``, as a controller does.

The launch is on record before its cloud is called, so that the next proxy on the state
folder takes it over. Until then no proxy renews it, so its backend's dead-man's
switch ends it. Without such a switch the instance is not started.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tenacity import AsyncRetrying, retry_if_exception_type, wait_fixed

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    CredentialsError,
    OutcomeUnknownError,
    StartupError,
    TransientError,
)
from ollama_proxy.cli.offline import require_date
from ollama_proxy.cli.opened_offers import opened_alone
from ollama_proxy.config.pools import PoolSpec
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.events import Accepted, Wake
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import AT_REST, LaunchId, Policy, Record, State
from ollama_proxy.core.lifecycle.transitions import step
from ollama_proxy.core.slot_keys import SlotKey
from ollama_proxy.fleet.backend import Backend, EndsAlone, Phase, SupportsPrices
from ollama_proxy.fleet.launch_ids import random_launch_id
from ollama_proxy.fleet.stop_until_gone import surely_gone
from ollama_proxy.store.ports import RecordStore

_LEAVING = {State.DRAINING, State.STOPPING}

Tell = Callable[[str], None]
"""Takes in one line for people."""


@dataclass(frozen=True, slots=True)
class Started:
    """Says what runs now, for how long at most without a renewal, and at what price.

    ``ends_at``: that end, in epoch seconds.
    """

    launch_id: LaunchId
    ends_s: float
    ends_at: float
    per_hour: float | None


async def start_alone(
    settings: Settings, tell: Tell, pool_name: str | None = None
) -> Started:
    """Start an instance of a pool, by its first offer, and wait until it runs.

    Without a name it is the first pool.
    Stops it again if it does not run within ``OLLAMA_PROXY_START_TIMEOUT``, or if the
    command is interrupted. Raises `StartupError` while a proxy runs on the state
    folder, and if nothing would end the instance.
    """
    require_date("nothing is started")
    pool = _pool_of(settings, pool_name)
    offer = pool.first_own
    async with opened_alone(settings) as (store, clock, backends):
        backend = backends[offer.name]
        ends_s = _end_without_proxy(offer.backend, backend)
        _refuse_others(pool, store)
        slot = str(SlotKey(pool.name, 0, offer.name))
        launch_id = await _reserve(store, clock, slot)
        tell(f"launch {launch_id} is started")
        try:
            async with asyncio.timeout(settings.start_timeout):
                await _until_accepted(backend, launch_id)
                _write_accepted(store, clock, slot)
                await _until_running(backend, launch_id, tell)
        except BaseException as error:
            tell(f"launch {launch_id} is stopped again")
            await surely_gone(backend, launch_id)
            store.forget([launch_id])
            if isinstance(error, TimeoutError):
                raise TransientError(
                    f"the instance did not run within {settings.start_timeout:.0f} s"
                    " and was stopped; see OLLAMA_PROXY_START_TIMEOUT"
                ) from None
            raise
        per_hour = (
            backend.prices.per_hour if isinstance(backend, SupportsPrices) else None
        )
        return Started(launch_id, ends_s, clock.wall() + ends_s, per_hour)


def started_words(started: Started) -> list[str]:
    """Return what a person has to know of an instance that no proxy keeps."""
    end = datetime.fromtimestamp(started.ends_at).astimezone()
    hour = started.per_hour
    price = "price unknown" if hour is None else f"{hour:g} per hour as configured"
    if hour is not None:
        price += f", {hour * started.ends_s / 3600.0:.2f} until then"
    return [
        f"launch {started.launch_id} runs, and no proxy keeps it: it ends by itself by"
        f" {end:%Y-%m-%d %H:%M %Z} ({price})",
        "`ollama-proxy serve` takes it over, and ends it when it is idle;"
        " `ollama-proxy stop` ends it now",
    ]


def _pool_of(settings: Settings, name: str | None) -> PoolSpec:
    pools = {pool.name: pool for pool in settings.pools}
    if name is not None and name not in pools:
        raise StartupError(f"--pool: no pool {name!r}; known: {', '.join(pools)}")
    return settings.pools[0] if name is None else pools[name]


def _refuse_others(pool: PoolSpec, store: RecordStore) -> None:
    """Raise `StartupError` if another offer of the pool has the slot's instance."""
    for offer in pool.offers:
        if offer is pool.first_own:
            continue
        record = store.get(str(SlotKey(pool.name, 0, offer.name)))
        if record is not None and record.state not in AT_REST:
            raise StartupError(
                f"launch {record.launch_id} of the offer {offer.name!r} is there"
                " already; run `ollama-proxy stop` first"
            )


def _end_without_proxy(backend_name: str, backend: Backend) -> float:
    """Return for how many seconds at most an instance runs without a renewal."""
    if not isinstance(backend, EndsAlone):
        raise StartupError(
            f"the backend {backend_name!r} starts nothing without a proxy:"
            " run `ollama-proxy serve`, then `ollama-proxy start`"
        )
    if (ends_s := backend.unattended_s) is None:
        raise StartupError(
            "nothing would end what is started without a proxy, as the dead-man's"
            " switch is off: run `ollama-proxy serve`, or switch it on"
        )
    return ends_s


async def _reserve(store: RecordStore, clock: Clock, slot: str) -> LaunchId:
    """Record the launch that is started: an existing one, or a new one."""
    before = store.get(slot) or Record(since=clock.now())
    if before.state in _LEAVING:
        raise StartupError(
            f"launch {before.launch_id} is being stopped; run `ollama-proxy stop`, then"
            " start again"
        )
    wake = Wake(random_launch_id(), forced=True)
    after = step(before, wake, now=clock.now(), policy=Policy()).record
    if after.launch_id == before.launch_id:
        store.put(slot, after, None)
    else:
        line = Transition(
            at=clock.wall(),
            slot=slot,
            launch_id=after.launch_id,
            before=before.state.value,
            after=after.state.value,
            event="Wake",
            fault=None,
        )
        await store.reserve(slot, after, line)
    assert after.launch_id is not None  # noqa: S101 - a forced wake always has one
    return after.launch_id


def _write_accepted(store: RecordStore, clock: Clock, slot: str) -> None:
    before = store.get(slot)
    if before is None or before.launch_id is None or before.state is not State.STARTING:
        return
    accepted = Accepted(before.launch_id)
    after = step(before, accepted, now=clock.now(), policy=Policy()).record
    store.put(slot, after, None)


async def _until_accepted(backend: Backend, launch_id: LaunchId) -> None:
    """Ask again for the same launch as long as an answer is lost or late."""
    # No `stop`: the caller sets the limit, or a person presses Ctrl-C.
    repeated = AsyncRetrying(
        retry=retry_if_exception_type((TransientError, OutcomeUnknownError)),
        wait=wait_fixed(backend.traits.poll_s),
        sleep=asyncio.sleep,
        reraise=True,
    )
    await repeated(backend.start, launch_id)


async def _until_running(backend: Backend, launch_id: LaunchId, tell: Tell) -> None:
    """Look until the instance runs, and report changes."""
    said = ""
    # A loop of its own instead of retries: only the cloud's answer ends it, and it
    # reports changes.
    while True:
        try:
            seen = await backend.inspect(launch_id)
        except (TransientError, OutcomeUnknownError) as error:
            words = str(error)
        else:
            words = seen.problem or seen.detail
            if seen.phase is Phase.RUNNING:
                return
            if seen.phase is not Phase.PENDING:
                raise BackendError(f"the launch failed: {words or seen.phase.value}")
            if seen.needs_person:
                raise CredentialsError(words)
        if words and words != said:
            tell(words)
            said = words
        await asyncio.sleep(backend.traits.poll_s)
