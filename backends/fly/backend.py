"""Keep one machine per slot of the app: started and stopped, or thrown away.

Names of machines are unique within an app, and so a name is both the key against
repetition and the lock against a second proxy: the first free of ``ollama-proxy-0``,
``-1`` … is asked for, and after a 409 the proxy looks whose it is. A machine is
made without running, and started by a call of its own.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace

from ollama_proxy.backends.attempts import Attempt, Attempts
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.evidence import (
    NOTHING,
    Evidence,
    events_in,
    evidence,
    evidence_of,
    evidence_of_gone,
)
from ollama_proxy.backends.fly.failures import NameTakenError, NoAppError
from ollama_proxy.backends.fly.machines import (
    LEAVING,
    RESTING,
    Machine,
    OwnershipTags,
    is_made_by_us,
    mark_name,
    oldest_first,
)
from ollama_proxy.backends.fly.maker import Provisioner
from ollama_proxy.backends.fly.owners import Owners
from ollama_proxy.backends.fly.premises import AppSetup
from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.backends.fly.states import Assessment, StateContext, assess
from ollama_proxy.backends.fly.volumes import Volumes
from ollama_proxy.backends.guard import GuardClient
from ollama_proxy.backends.leases import is_renewal_due
from ollama_proxy.backends.patience import Sleep
from ollama_proxy.backends.seen_owners import SeesOwners
from ollama_proxy.backends.sightings import Absences, Sightings
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    ConflictError,
    NotFoundError,
    SettingsError,
    SpecError,
    TransientError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import (
    BackendContext,
    Finding,
    Observation,
    Phase,
    Prices,
    Traits,
    Upstream,
)
from ollama_proxy.fleet.stop_until_gone import until_gone
from ollama_proxy.upstream.certificates import Authority
from ollama_proxy.upstream.endpoint import Link

_NAME = "ollama-proxy-"
_MAX_SLOTS = 10
_ROOT_GIB = 8  # Fly's limit for the root file system, image included
_ENDING_S = 60.0
"""From the dead-man's time-out to a machine that is stopped, at most: looks 5 s apart,
10 s for Ollama to end, and 30 s until Fly kills what does not."""
_ORPHAN_PREFIX = "machine-"
"""Before a machine's id: the name under which the sweep destroys it alone."""
_NEEDLESS = "volume-"
"""The same before a volume's id."""


class FlyBackend(SeesOwners[Owners]):
    """Runs the machines of one deployment, in an app of its own."""

    def __init__(
        self,
        settings: FlySettings,
        *,
        api: FlyApi,
        owner_id: str,
        remembers: Callable[[LaunchId], bool],
        attempts: Attempts,
        authority: Authority,
        clock: Clock,
        max_lifetime_s: float | None,
        poll_s: float,
    ) -> None:
        self._settings = settings
        self._owner_id = owner_id
        self._remembers = remembers
        self._api = api
        self._marks = OwnershipTags(owner_id)
        self._attempts = attempts
        self._clock = clock
        self._guard = GuardClient()
        self._keeps = settings.idle_action != "destroy"
        self._volumes = Volumes(settings, api=api, marks=self._marks, attempts=attempts)
        self._maker = Provisioner(
            settings,
            api=api,
            marks=self._marks,
            attempts=attempts,
            volumes=self._volumes,
            authority=authority,
            clock=clock,
            max_lifetime_s=max_lifetime_s,
        )
        self._premises = AppSetup(
            settings, api=api, attempts=attempts, volumes=self._volumes, clock=clock
        )
        self._sightings = Sightings[Machine](
            attempts.shown(api.app),
            ask=lambda _app, machine_id: api.machine(machine_id),
            is_over=lambda one: one.state in LEAVING or not self._marks.is_ours(one),
            save=attempts.note_shown,
        )
        self._absences = Absences()
        self._owners = Owners(settings, api, machines=self._machines)
        self._heard: dict[LaunchId, Upstream] = {}
        self._last_shown: dict[LaunchId, Machine] = {}
        self._told_to_stop: set[LaunchId] = set()
        self._settled: LaunchId | None = None
        self._resting = 0
        self.traits = Traits(
            starts_empty=not settings.keeps_disk,
            models_place=self._models_place(),
            poll_s=poll_s,
            watch_s=30.0,
            renew_s=60.0,
            location=settings.region,
            instance_type=settings.size,
            alternatives=settings.fallback_regions,
            models_gib=settings.volume_gb or _ROOT_GIB,
            memory_gb=settings.guest.memory_mb * (1 << 20) / 1e9,
            gpus=0,
            spec=self._maker.spec,
        )

    def _models_place(self) -> str:
        settings = self._settings
        disk = "volume" if settings.volume_gb else self._maker.image
        return f"{settings.app} {settings.region} {disk}"

    def _take_image(self) -> None:
        """Tell by the traits that launches are made of another image from now on."""
        self.traits = replace(
            self.traits, spec=self._maker.spec, models_place=self._models_place()
        )

    async def start(self, launch_id: LaunchId) -> None:
        """Have the machine of a launch run: its own, one at rest, or a new one."""
        self._told_to_stop.discard(launch_id)
        attempt = self._attempts.get(launch_id)
        if attempt is not None and attempt.instance_id is not None:
            machine = await self._look(launch_id, attempt)
            if machine is not None and machine.state not in LEAVING:
                await self._run(launch_id, machine)
                return
            if attempt.create_may_arrive(self._clock.now()) and not attempt.seen:
                raise TransientError("the machine of this launch is not shown yet")
            self._attempts.put(launch_id, Attempt(self._settings.region))
        elif attempt is None:
            self._attempts.put(launch_id, Attempt(self._settings.region))
        try:
            machines = await self._all_of(await self._api.machines())
        except NoAppError as error:
            raise SpecError(str(error)) from error
        found = [one for one in self._ours(machines) if one.launch == launch_id]
        if found:
            await self._take(launch_id, oldest_first(found)[0])
            return
        self._refuse_twins(self._owners.of(machines))
        await self._take_a_slot(launch_id, machines)

    async def _take_a_slot(self, launch_id: LaunchId, machines: list[Machine]) -> None:
        """Take the machine of the first slot that is free, or make one for it."""
        by_name = {one.name: one for one in machines if one.state not in LEAVING}
        used = self._attempts.instance_ids()
        for number in range(_MAX_SLOTS):
            name = f"{_NAME}{number}"
            machine = by_name.get(name)
            if machine is None:
                try:
                    await self._maker.make(launch_id, name)
                except NameTakenError as error:
                    machine = await self._api.machine(error.machine_id)
                    self._refuse_twins(self._owners.of([machine]))
                else:
                    return
            self._refuse_strangers(machine)
            if machine.state in LEAVING:
                raise ConflictError(f"the machine {machine.id} is being destroyed")
            rests = machine.state in RESTING
            if machine.host_status == "unreachable" and rests:
                continue  # it can't be started now
            if machine.launch == launch_id or (
                machine.is_resting and machine.id not in used
            ):
                await self._take(launch_id, machine)
                return
            if machine.id not in used:
                await self._end(machine, keep=self._keeps)
                raise ConflictError(
                    f"the machine {machine.id} is {machine.state} for a launch that"
                    " nobody knows, and is ended first"
                )
        raise CapacityError(f"the app has {_MAX_SLOTS} machines already")

    def _refuse_strangers(self, machine: Machine) -> None:
        """Raise `SpecError` for a machine of somebody else: the app is taken."""
        is_told = bool(machine.config or machine.incomplete_config)
        if machine.host_status == "unreachable" and not is_told:
            raise TransientError(
                f"the host of the machine {machine.id} can't be reached, so nobody can"
                " tell whose it is"
            )
        if not self._marks.is_ours(machine):
            raise SpecError(
                f"the app {self._api.app!r} has a machine {machine.name!r} of another"
                " deployment; give each an app of its own (FLY_APP), or destroy that"
                f" machine: `fly machine destroy {machine.id}`"
            )

    async def _take(self, launch_id: LaunchId, machine: Machine) -> None:
        """Note a machine for a launch, and have it run."""
        attempt = Attempt(
            machine.region or self._settings.region,
            attempted_at=self._clock.now(),
            instance_id=machine.id,
            identity=machine.mark("identity"),
            seen=True,
        )
        self._attempts.put(launch_id, attempt)
        await self._run(launch_id, machine)

    async def _run(self, launch_id: LaunchId, machine: Machine) -> None:
        """Start a machine for a launch, unless it runs; replace one without room."""
        if machine.launch != launch_id:
            await self._api.mark(machine.id, mark_name("launch"), str(launch_id))
        if not (machine.is_resting or machine.state == "created"):
            return
        if bool(machine.volume) != (self._settings.volume_gb > 0):
            await self._end(machine, keep=False)
            self._attempts.put(launch_id, Attempt(self._settings.region))
            told = "with" if self._settings.volume_gb else "without"
            raise ConflictError(f"the machine is made anew, {told} a volume")
        self._resting = max(0, self._resting - machine.is_resting)
        self._attempts.mark(launch_id, started_at=self._clock.now(), seen_live=False)
        lease_end = f"{self._clock.wall() + self._settings.lease:.0f}"
        await self._api.mark(machine.id, mark_name("lease"), lease_end)
        try:
            async with self._api.leased(machine.id) as nonce:
                if machine.mark("spec") != self._maker.spec:
                    identity = machine.mark("identity") or str(launch_id)
                    volume = machine.volume
                    config = self._maker.config(launch_id, identity, volume)
                    machine = await self._api.update(machine, config, nonce)
                await self._api.start(machine.id, nonce)
        except CapacityError as error:
            # Its volume holds it to a full host: it is made again elsewhere.
            if machine.volume is not None:
                self._maker.stuck.add(machine.volume)
            with contextlib.suppress(NotFoundError):
                await self._api.destroy(machine.id, None)
            self._attempts.put(launch_id, Attempt(self._settings.region))
            raise ConflictError(f"{error}; it is made anew on another host") from error

    async def _machines(self) -> list[Machine]:
        """Return every machine of the app; none if there is no such app."""
        try:
            return await self._all_of(await self._api.machines())
        except NoAppError:
            return []

    async def _all_of(self, listed: list[Machine]) -> list[Machine]:
        """Return a list with the machines of ours that it lacks, and were shown."""
        ours = [one for one in listed if self._marks.is_ours(one)]
        known = await self._sightings.complete(self._api.app, ours)
        shown = {one.id for one in listed}
        return listed + [one for one in known if one.id not in shown]

    def _ours(self, machines: list[Machine]) -> list[Machine]:
        return [
            one
            for one in machines
            if self._marks.is_ours(one) and one.state not in LEAVING
        ]

    async def _every_one_of_ours(self) -> list[Machine]:
        """Return our machines, those included that have a volume and are not listed."""
        there = {one.id: one for one in await self._machines()}
        for volume in await self._volumes.ours():
            machine_id = volume.attached_machine_id
            if machine_id is not None and machine_id not in there:
                with contextlib.suppress(NotFoundError):
                    there[machine_id] = await self._api.machine(machine_id)
        return self._ours(list(there.values()))

    async def inspect(self, launch_id: LaunchId) -> Observation:
        """Look once, at the API and then at the machine itself."""
        if launch_id.startswith((_ORPHAN_PREFIX, _NEEDLESS)):
            return await self._inspect_unwanted(launch_id)
        attempt = self._attempts.get(launch_id)
        if attempt is not None and attempt.create_not_sent:
            return self._forgotten(launch_id)
        if attempt is None or attempt.instance_id is None:
            return await self._inspect_unknown(launch_id, attempt)
        machine = await self._look(launch_id, attempt)
        if machine is None:
            if attempt.create_may_arrive(self._clock.now()) and not attempt.seen:
                return Observation(Phase.PENDING, detail="made, not yet shown")
            return await self._inspect_lost(launch_id, attempt.instance_id)
        return await self._inspect_machine(launch_id, attempt, machine)

    async def _inspect_unknown(
        self, launch_id: LaunchId, attempt: Attempt | None
    ) -> Observation:
        """Tell of a launch whose machine is not known: it may be found by its marks."""
        ours = self._ours(await self._machines())
        found = [one for one in ours if one.launch == launch_id]
        for machine in oldest_first(found):
            if self._keeps and machine.is_resting:
                continue
            noted = Attempt(
                machine.region,
                attempted_at=self._clock.now(),
                instance_id=machine.id,
                identity=machine.mark("identity"),
                seen=True,
            )
            self._attempts.put(launch_id, noted)
            return await self._inspect_machine(launch_id, noted, machine)
        if attempt is not None and self._may_turn_up(launch_id, attempt):
            return Observation(Phase.PENDING, detail="looking for a lost machine")
        return await self._inspect_rest(launch_id)

    def _may_turn_up(self, launch_id: LaunchId, attempt: Attempt) -> bool:
        """Tell whether a machine that no list shows may still have been made."""
        now, sent_at = self._clock.now(), attempt.attempted_at
        if sent_at is None:
            return False
        is_certain = self._absences.is_certain(launch_id, now, sent_at=sent_at)
        return attempt.create_may_arrive(now) or not is_certain

    async def _inspect_rest(
        self, launch_id: LaunchId, told: Evidence = NOTHING
    ) -> Observation:
        """Tell of a launch without a machine: what it leaves may have to go first."""
        is_meant = launch_id in self._told_to_stop
        clears = not self._settings.keep_volume and is_meant
        if clears and await self._volumes.ours():
            return Observation(Phase.PENDING, detail="its volume is there still")
        return self._forgotten(launch_id, NOTHING if is_meant else told)

    async def _inspect_unwanted(self, name: LaunchId) -> Observation:
        """Tell whether a machine or volume without a launch is gone."""
        if name.startswith(_NEEDLESS):
            there = {_NEEDLESS + one.id for one in await self._volumes.ours()}
            return Observation(Phase.PENDING if name in there else Phase.GONE)
        try:
            machine = await self._api.machine(name.removeprefix(_ORPHAN_PREFIX))
        except NotFoundError:
            return Observation(Phase.GONE)
        phase = Phase.GONE if machine.state in LEAVING else Phase.PENDING
        return Observation(phase, detail=machine.state)

    async def _look(self, launch_id: LaunchId, attempt: Attempt) -> Machine | None:
        """Return a launch's machine; None if Fly neither knows nor lists it."""
        assert attempt.instance_id is not None  # noqa: S101 - the callers looked
        try:
            machine = await self._api.machine(attempt.instance_id)
        except NotFoundError as error:
            listed = await self._machines()
            if any(one.id == attempt.instance_id for one in listed):
                raise TransientError(f"{error}, and yet it is in the list") from error
            return None
        self._sightings.note(self._api.app, machine)
        self._last_shown[launch_id] = machine
        live = machine.state not in RESTING | {"created"}
        self._attempts.note_look(launch_id, live=live)
        return machine

    async def _inspect_machine(
        self, launch_id: LaunchId, attempt: Attempt, machine: Machine
    ) -> Observation:
        """Tell what a machine's state means for its launch."""
        known = StateContext(
            keeps=self._keeps,
            told_to_stop=launch_id in self._told_to_stop,
            start_not_visible_yet=self._is_unshown(launch_id),
        )
        thought, why = assess(machine, known)
        if thought is Assessment.PENDING:
            return Observation(Phase.PENDING, detail=why)
        if thought is Assessment.MAYBE_READY:
            return await self._boot(launch_id, attempt, machine)
        told = NOTHING if known.told_to_stop else await evidence_of(self._api, machine)
        if thought is Assessment.GONE:
            self._resting += machine.is_resting
            return await self._inspect_rest(launch_id, told)
        detail = f"{why}: {told.why}" if told.why else why
        return Observation(Phase.FAILED, detail=detail, report=told.report)

    async def _inspect_lost(self, launch_id: LaunchId, machine_id: str) -> Observation:
        """Tell of a launch whose machine Fly does not know any more."""
        if launch_id in self._told_to_stop:
            return await self._inspect_rest(launch_id)
        last = self._last_shown.get(launch_id)
        told = await evidence_of_gone(self._api, machine_id, last)
        return await self._inspect_rest(launch_id, told)

    async def report(self, launch_id: LaunchId) -> str:
        """Return the events of a launch's machine, which is given up."""
        attempt = self._attempts.get(launch_id)
        if attempt is None or attempt.instance_id is None:
            return ""
        try:
            machine = await self._api.machine(attempt.instance_id)
        except BackendError as error:
            last = self._last_shown.get(launch_id)
            if last is None:
                return f"nothing could be fetched of the machine: {error}"
            return evidence(last, events_in(last.events)).report
        return (await evidence_of(self._api, machine)).report

    def _is_unshown(self, launch_id: LaunchId) -> bool:
        attempt = self._attempts.get(launch_id)
        return attempt is not None and attempt.start_not_visible_yet(self._clock.now())

    def _forgotten(self, launch_id: LaunchId, told: Evidence = NOTHING) -> Observation:
        self._absences.end(launch_id)
        self._attempts.drop(launch_id)
        self._heard.pop(launch_id, None)
        self._last_shown.pop(launch_id, None)
        self._told_to_stop.discard(launch_id)
        detail = f"the machine has ended: {told.why}" if told.why else ""
        return Observation(Phase.GONE, detail=detail, report=told.report)

    async def _boot(
        self, launch_id: LaunchId, attempt: Attempt, machine: Machine
    ) -> Observation:
        """Tell whether a machine's guard is heard; until then Fly's edge answers."""
        heard = self._heard.get(launch_id)
        if heard is not None:
            return Observation(Phase.RUNNING, heard, machine.id)
        link = Link(
            self._maker.token(attempt.identity or str(launch_id)),
            headers={"fly-force-instance-id": machine.id},
            is_marked=True,
        )
        upstream = Upstream(self._settings.url_of(machine.id), link)
        sight = await self._guard.look(upstream)
        if sight.stage is None:
            return Observation(
                Phase.PENDING,
                upstream,
                machine.state,
                problem=sight.problem,
                needs_person=sight.needs_person,
            )
        self._heard[launch_id] = upstream
        return Observation(Phase.RUNNING, upstream, machine.id)

    async def renew(self, launch_id: LaunchId, *, serves: bool) -> None:
        """Put off the dead-man's switch, and now and then the end of the lease."""
        attempt = self._attempts.get(launch_id)
        if attempt is None or attempt.instance_id is None:
            return
        if (upstream := self._heard.get(launch_id)) is not None:
            await self._guard.renew(upstream)
        if serves:
            self._attempts.note_served(launch_id)
        machine = await self._api.machine(attempt.instance_id)
        wall = self._clock.wall()
        if is_renewal_due(machine.lease_end, wall, self._settings.lease):
            lease_end = f"{wall + self._settings.lease:.0f}"
            await self._api.mark(machine.id, mark_name("lease"), lease_end)
        if serves and self._settled != launch_id:
            await self._settle(launch_id, machine)

    async def _settle(self, launch_id: LaunchId, machine: Machine) -> None:
        """Destroy what a machine that serves makes needless, once per launch.

        These are what rests besides, for it was on a host that could not be reached;
        and volumes that it was copied from, or that a list did not show.
        """
        self._volumes.note_served(machine.volume)
        if self._attempts.launches() - {launch_id}:
            return
        ours = self._ours(await self._machines())
        others = [one for one in ours if one.id != machine.id]
        for other in others:
            if other.state in RESTING:
                await self._end(other, keep=False)
        if await self._settle_volumes([machine, *others]) and not others:
            self._settled = launch_id

    async def _settle_volumes(self, machines: Collection[Machine]) -> bool:
        """Destroy the volumes that neither these machines nor the next one need."""
        held = {one.volume for one in machines if one.volume is not None}
        return await self._volumes.settle(held=held)

    async def stop(self, launch_id: LaunchId) -> None:
        """Go one step towards a machine that costs no compute; `inspect` tells when."""
        self._heard.pop(launch_id, None)
        attempt = self._attempts.get(launch_id)
        if attempt is not None and attempt.create_not_sent:
            return
        if launch_id.startswith((_ORPHAN_PREFIX, _NEEDLESS)):
            await self._end_unwanted(launch_id)
            return
        self._told_to_stop.add(launch_id)
        for machine in await self._of_launch(launch_id, attempt):
            keep = self._keeps and (attempt is None or _has_served(launch_id, attempt))
            await self._end(machine, keep=keep, again=self._is_unshown(launch_id))
        if self._attempts.launches() <= {launch_id}:
            await self._settle_volumes(self._ours(await self._machines()))

    async def _of_launch(
        self, launch_id: LaunchId, attempt: Attempt | None
    ) -> list[Machine]:
        """Return the machines of a launch: the one that is noted, else by its marks."""
        if attempt is not None and attempt.instance_id is not None:
            machine = await self._look(launch_id, attempt)
            return [] if machine is None else [machine]
        ours = self._ours(await self._machines())
        found = [one for one in ours if one.launch == launch_id]
        for machine in found if attempt is not None else ():
            # A creation whose answer was lost has turned up.
            live = machine.state not in RESTING
            self._attempts.note_found(launch_id, machine.id, live=live)
        return found

    async def _end(self, machine: Machine, *, keep: bool, again: bool = False) -> None:
        """Stop or suspend a machine that is kept; destroy any other.

        What never ran may start by itself hours later, and what failed may still be
        paid for: these are destroyed. ``again``: it is stopped even if it is shown at
        rest, for it was just started.
        """
        if not self._marks.is_ours(machine):
            raise TransientError(
                f"the machine {machine.id} does not carry our marks any more, so it is"
                " left alone; destroy it with `fly machine destroy`"
            )
        if machine.state in LEAVING:
            return
        is_kept = keep and machine.state not in {"created", "failed", "launch_failed"}
        with contextlib.suppress(NotFoundError):
            if not is_kept:
                async with self._api.leased(machine.id) as nonce:
                    await self._api.destroy(machine.id, nonce)
            elif machine.state not in RESTING | {"stopping", "suspending"} or again:
                async with self._api.leased(machine.id) as nonce:
                    await self._rest(machine, nonce)

    async def _rest(self, machine: Machine, nonce: str) -> None:
        """Suspend a machine if that is wanted and possible, else stop it."""
        if self._settings.idle_action == "suspend":
            with contextlib.suppress(SpecError, ConflictError):
                await self._api.suspend(machine.id, nonce)
                return
        await self._api.stop(machine.id, nonce)

    async def _end_unwanted(self, name: LaunchId) -> None:
        """Destroy a machine or volume that no launch has, if that is still so."""
        ours = self._ours(await self._machines())
        if name.startswith(_NEEDLESS):
            if not self._attempts.launches():
                await self._settle_volumes(ours)
            return
        for machine in ours:
            used = self._attempts.instance_ids()
            if _ORPHAN_PREFIX + machine.id == name and machine.id not in used:
                await self._end(machine, keep=False)

    async def owned(self) -> Collection[LaunchId]:
        """Name every launch that has a machine which may cost more than its disk.

        A machine that rests for the next launch belongs to none. More of them than
        one are named by their own ids, and so are a second one of a launch and volumes
        that nobody needs: these are stopped as strays, which destroys them.
        """
        names: set[LaunchId] = set()
        kept = 0
        ours = self._ours(await self._machines())
        for machine in sorted(oldest_first(ours), key=self._is_second_choice):
            is_used = machine.id in self._attempts.instance_ids()
            is_double = self._attempts.has_other(machine.launch, machine.id)
            launch_id = self._attempts.launch_of(machine.id) or machine.launch
            rests = machine.state in RESTING
            if self._keeps and rests and not is_used and not kept:
                kept += 1
            elif is_used or not (rests or is_double):
                names.add(launch_id)
            else:
                names.add(LaunchId(_ORPHAN_PREFIX + machine.id))
        self._resting = kept
        if not self._attempts.launches():  # one that is being made has no machine yet
            names |= await self._needless_volumes(ours)
        return names

    def _is_second_choice(self, machine: Machine) -> tuple[bool, bool]:
        """Order machines at rest by what they are worth to the next launch."""
        has_models = machine.volume == self._attempts.book.volume
        return not machine.is_resting, not has_models

    async def _needless_volumes(self, machines: list[Machine]) -> set[LaunchId]:
        held = {one.volume for one in machines if one.volume is not None}
        needless = await self._volumes.needless(held=held)
        return {LaunchId(_NEEDLESS + one.id) for one in needless}

    @property
    def prices(self) -> Prices:
        """Return what the machine costs, running by the settings, and at rest."""
        rest = self._premises.idle_price_per_hour(machines=self._resting)
        return Prices(self._settings.price_per_hour, self._resting, rest)

    @property
    def unattended_s(self) -> float | None:
        """Return how long at most a machine runs that no proxy renews.

        The image's entrypoint counts from its start, and ends with it; the machine is
        not started again (restart policy ``no``). Not tried on a live account.
        """
        return self._settings.dead_man_timeout + _ENDING_S

    async def sweep_expired(self, *, dry_run: bool) -> list[str]:
        """Stop each machine of any deployment in this app whose lease is over."""
        swept: list[str] = []
        problem: BackendError | None = None
        for machine in await self._machines():
            over = machine.lease_end < self._clock.wall()
            rests = machine.is_resting or machine.state in LEAVING
            if not is_made_by_us(machine) or rests or not over:
                continue
            swept.append(f"machine {machine.id} in {machine.region} ({machine.state})")
            try:
                if not dry_run:
                    await self._end_expired(machine)
            except BackendError as error:
                problem = error  # the others are ended all the same
        if problem is not None:
            raise problem
        return swept

    async def _end_expired(self, machine: Machine) -> None:
        with contextlib.suppress(NotFoundError):
            async with self._api.leased(machine.id) as nonce:
                if machine.state == "started":
                    await self._api.stop(machine.id, nonce)
                else:
                    await self._api.destroy(machine.id, nonce)

    async def tidy(self) -> None:
        """Destroy volumes that no machine needs."""
        if not self._attempts.launches():  # one that is being made has no machine yet
            await self._settle_volumes(self._ours(await self._machines()))

    async def kept(self) -> list[str]:
        """Return what costs while nothing runs, in words, with its monthly price."""
        return await self._premises.kept(self._ours(await self._machines()))

    async def deploy(self, image: str) -> AsyncIterator[str]:
        """Make app, addresses and volume for an image; tell each step."""
        async for step in self._premises.deploy(image):
            yield step
        self._take_image()

    async def remove(self) -> AsyncIterator[str]:
        """Delete machines, volumes, addresses and the app, in this order.

        What a proxy on a copy of the state folder lives by is named, and nothing is
        touched.
        """
        ours = await self._every_one_of_ours()
        self._refuse_twins(self._owners.of(ours))
        for launch_id in sorted(self._attempts.launches()):
            yield f"stopping the machine of launch {launch_id}"
            await until_gone(self, launch_id)
            ours = await self._every_one_of_ours()
            self._refuse_twins(self._owners.of(ours))
        for machine in ours:
            yield f"destroying machine {machine.id} ({machine.state})"
            await until_gone(self, LaunchId(_ORPHAN_PREFIX + machine.id))
            await self._api.reaches(machine, "destroyed")
        async for step in self._premises.remove():
            yield step
        self._take_image()

    async def deployed(self) -> list[str]:
        """Return what there is of this deployment, in words."""
        return await self.kept()

    async def aclose(self) -> None:
        """Close connections; machines stay as they are."""
        await self._guard.aclose()
        await self._api.aclose()

    async def check(self) -> list[Finding]:
        """Examine token, app, region, size, image, addresses; make nothing."""
        from ollama_proxy.backends.fly.check import examine  # noqa: PLC0415 - rare

        return await examine(self._api, self._settings, image=self._maker.image)


def _has_served(launch_id: LaunchId, attempt: Attempt) -> bool:
    """Tell whether a machine was ready once: in this launch, or in one before."""
    return attempt.served or attempt.identity not in {None, str(launch_id)}


def open_backend(
    context: BackendContext, *, poll_s: float = 3.0, sleep: Sleep = asyncio.sleep
) -> FlyBackend:
    """Build the backend from the settings ``fly``.

    ``poll_s`` is the pause between two looks; ``sleep`` waits when Fly limits calls.
    """
    settings = context.options.get("fly")
    if not isinstance(settings, FlySettings):
        raise SettingsError(["fly: the backend 'fly' needs its settings"])
    token, app = settings.api_token, settings.app
    if (faults := settings.faults()) or token is None or app is None:
        raise SettingsError(faults)
    lifetime = context.options.get("max_lifetime")
    return FlyBackend(
        settings,
        api=FlyApi(
            app,
            url=settings.api_url,
            token=token.get_secret_value(),
            clock=context.clock,
            sleep=sleep,
        ),
        owner_id=context.owner_id,
        remembers=context.remembers,
        attempts=Attempts(context.notes, context.clock.now()),
        authority=Authority(context.state_dir / "authority", context.clock),
        clock=context.clock,
        max_lifetime_s=lifetime if isinstance(lifetime, float) else None,
        poll_s=poll_s,
    )
