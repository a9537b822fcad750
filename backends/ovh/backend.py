"""Keep one app that is started and stopped, or one per launch.

Names of apps repeat, and a creation has no key against repetition. So the attempt is
noted before the call, and after a lost answer the app is looked for by its labels,
until so much time has passed that the call can't have arrived. An app that is kept
is only started, which may be asked for twice.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from ollama_proxy.backends.attempts import Attempt, Attempts
from ollama_proxy.backends.guard import GuardClient
from ollama_proxy.backends.leases import is_renewal_due
from ollama_proxy.backends.ovh.app_log import last_lines
from ollama_proxy.backends.ovh.apps import (
    LEAVING,
    App,
    OwnershipTags,
    described,
    label_name,
    launch_of,
)
from ollama_proxy.backends.ovh.cards import gpus_of
from ollama_proxy.backends.ovh.cli import CliDriver
from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.backends.ovh.fleet import AppInventory
from ollama_proxy.backends.ovh.maker import Provisioner
from ollama_proxy.backends.ovh.namesakes import Namesakes, to_replace
from ollama_proxy.backends.ovh.order import SCALE_DOWN_S
from ollama_proxy.backends.ovh.owners import Owners
from ollama_proxy.backends.ovh.rest import RestDriver
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.backends.ovh.states import Assessment, StateContext, assess
from ollama_proxy.backends.seen_owners import SeesOwners
from ollama_proxy.backends.sightings import Absences
from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.environment import home_folder
from ollama_proxy.base.errors import (
    CredentialsError,
    NotFoundError,
    OutcomeUnknownError,
    SettingsError,
    SpecError,
    TransientError,
)
from ollama_proxy.core.http.headers import GUARD_TOKEN
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import (
    BackendContext,
    Finding,
    Observation,
    Phase,
    Prices,
    Traits,
    Unchanged,
    Upstream,
)
from ollama_proxy.fleet.reports import secrets_in
from ollama_proxy.fleet.stop_until_gone import surely_gone, until_gone
from ollama_proxy.upstream.certificates import Authority
from ollama_proxy.upstream.endpoint import Link

_ORPHAN_PREFIX = "app-"
"""Before an app's id: the name under which the sweep deletes it alone."""
_DEPLOYED = "deployed"
"""Before a moment: a launch by which `deploy` makes an app."""


class OvhBackend(SeesOwners[Owners]):
    """Runs the apps of one deployment. ``driver_of`` opens a region's driver."""

    def __init__(
        self,
        settings: OvhSettings,
        *,
        owner_id: str,
        remembers: Callable[[LaunchId], bool],
        attempts: Attempts,
        authority: Authority,
        clock: Clock,
        driver_of: Callable[[str], Driver],
        max_lifetime_s: float | None,
        poll_s: float,
    ) -> None:
        self._settings = settings
        self._owner_id = owner_id
        self._remembers = remembers
        self._labels = OwnershipTags(owner_id)
        self._attempts = attempts
        self._authority = authority
        self._clock = clock
        self._fleet = AppInventory(
            self._labels, regions=self.regions, driver_of=driver_of, attempts=attempts
        )
        self._absences = Absences()
        self._guard = GuardClient()
        self._keeps = settings.idle_action == "stop"
        self._maker = Provisioner(
            settings,
            labels=self._labels,
            attempts=attempts,
            authority=authority,
            clock=clock,
            driver_of=self._fleet.driver,
            max_lifetime_s=max_lifetime_s,
        )
        self._owners = Owners(
            regions=self.regions,
            configured=settings.regions,
            driver_of=self._fleet.driver,
            per_hour=settings.price_per_hour,
        )
        self._namesakes = Namesakes(
            self._labels,
            regions=settings.regions,
            driver_of=self._fleet.driver,
            pause_s=poll_s,
        )
        self._heard: dict[LaunchId, Upstream] = {}
        self._told_to_stop: set[LaunchId] = set()
        self._reported: set[LaunchId] = set()
        self._resting = 0
        self._log = structlog.get_logger()
        gpus = gpus_of(settings.flavor, settings.gpu_model, settings.gpu_count)
        self.traits = Traits(
            starts_empty=settings.volume is None,
            models_place=self._models_place(),
            poll_s=poll_s,
            watch_s=30.0,
            renew_s=60.0,
            location=settings.region,
            instance_type=settings.flavor or settings.gpu_model,
            spec=self._maker.spec,
            alternatives=settings.fallback_regions,
            gpus=gpus and gpus[0],
            gpu_memory_gb=gpus and gpus[1],
        )

    def _models_place(self) -> str:
        settings = self._settings
        return f"{settings.region} {settings.volume or self._maker.image}"

    def _note_image(self, image: str | None) -> None:
        """Have launches make their app of another image from now on."""
        self._attempts.note(image=image)
        self.traits = replace(
            self.traits, spec=self._maker.spec, models_place=self._models_place()
        )

    def regions(self) -> list[str]:
        """Return every region in which there may be something of ours."""
        return [*dict.fromkeys([*self._settings.regions, *self._attempts.book.regions])]

    async def start(self, launch_id: LaunchId) -> None:
        """Have the app of a launch run: the one that it has, one that rests, or new."""
        self._told_to_stop.discard(launch_id)
        attempt = self._attempts.get(launch_id)
        if attempt is not None and attempt.instance_id is not None:
            app = await self._look(launch_id, attempt)
            if app is not None and app.state not in LEAVING:
                await self._run(launch_id, attempt, app)
                return
            if (
                app is None
                and attempt.create_may_arrive(self._clock.now())
                and not attempt.seen
            ):
                raise TransientError("the app of this launch is not shown yet")
            attempt = None  # it went before it was started: another one is taken
        if attempt is None:
            self._attempts.put(launch_id, Attempt(self._settings.region))
        for _ in range(2):  # lists may trail: two looks before "there is none"
            if (found := await self._adopted(launch_id)) is not None:
                await self._run(launch_id, *found)
                return
        if attempt is not None and self._may_turn_up(launch_id, attempt):
            raise OutcomeUnknownError(
                "the answer to the making of an app was lost; it is looked for by its"
                " labels"
            )
        everything = await self._fleet.everything()
        self._refuse_twins([self._owners.belonging(*one) for one in everything])
        if (resting := await self._one_that_rests()) is not None:
            region, app = resting
            identity = app.label("identity")
            attempt = Attempt(region, instance_id=app.id, identity=identity, seen=True)
            self._attempts.put(launch_id, attempt)
            await self._run(launch_id, attempt, app)
            return
        await self._maker.make(launch_id)

    async def _run(self, launch_id: LaunchId, attempt: Attempt, app: App) -> None:
        """Start an app for a launch, unless it runs."""
        driver = self._fleet.driver(attempt.region)
        if launch_of(app) != launch_id:
            await driver.label(app.id, label_name("launch"), str(launch_id))
        if not app.is_resting:
            return
        self._resting = max(0, self._resting - 1)
        self._attempts.mark(launch_id, started_at=self._clock.now(), seen_live=False)
        lease_end = f"{self._clock.wall() + self._settings.lease:.0f}"
        await driver.label(app.id, label_name("lease"), lease_end)
        await driver.start(app.id)

    async def _one_that_rests(self) -> tuple[str, App] | None:
        """Return the app that is kept for the next launch, and its region.

        One in a region that had no room lately is left alone, if there is another
        region in which one can be made.
        """
        if not self._keeps:
            return None
        used = self._attempts.instance_ids()
        resting: dict[str, App] = {}
        for region, app in await self._fleet.everything(surely=self._settings.region):
            if self._is_kept(app) and app.id not in used:
                resting.setdefault(region, app)
        for region in self._maker.regions():
            if self._maker.is_full(region) and not self._maker.is_full_everywhere():
                return None
            if region in resting:
                return region, resting[region]
        return None

    def _is_kept(self, app: App) -> bool:
        """Tell whether an app is one to be started again: it rests, and is as meant."""
        fits = app.label("spec") == self._maker.spec
        return self._keeps and app.is_resting and fits

    async def _adopted(self, launch_id: LaunchId) -> tuple[Attempt, App] | None:
        """Note the app that carries a launch's labels; None if none does.

        Of several the oldest stays: the others were made by mistake.
        """
        found = await self._fleet.of_launch(launch_id, surely=self._sent_to(launch_id))
        if not found:
            return None
        self._absences.end(launch_id)
        (region, first), *rest = sorted(found, key=lambda one: one[1].created_at)
        attempt = Attempt(
            region,
            attempted_at=self._clock.now(),
            instance_id=first.id,
            identity=first.label("identity"),
        )
        self._attempts.put(launch_id, attempt)
        for other_region, other in rest:
            self._log.error(log.INSTANCE_DOUBLE, launch_id=launch_id, instance=other.id)
            await self._fleet.end(other_region, other, keep=False)
        return attempt, first

    def _sent_to(self, launch_id: LaunchId) -> str | None:
        """Return the region in which an app of a launch may have been made."""
        attempt = self._attempts.get(launch_id)
        sent = attempt is not None and attempt.attempted_at is not None
        return attempt.region if attempt is not None and sent else None

    async def inspect(self, launch_id: LaunchId) -> Observation:
        """Look once, at the platform and then at the app itself."""
        if launch_id.startswith(_ORPHAN_PREFIX):
            return await self._inspect_unwanted(launch_id.removeprefix(_ORPHAN_PREFIX))
        attempt = self._attempts.get(launch_id)
        if attempt is not None and attempt.create_not_sent:
            return self._forgotten(launch_id)
        if attempt is None or attempt.instance_id is None:
            return await self._inspect_unknown(launch_id, attempt)
        app = await self._look(launch_id, attempt)
        if app is None:
            is_new = attempt.create_may_arrive(self._clock.now()) and not attempt.seen
            if is_new:
                return Observation(Phase.PENDING, detail="made, not yet shown")
            was_wanted = launch_id not in self._told_to_stop
            gone = self._forgotten(launch_id)
            report = "the app is gone, so nothing of its own log could be fetched"
            return replace(gone, report=report) if was_wanted else gone
        return await self._inspect_app(launch_id, attempt, app)

    async def _inspect_unknown(
        self, launch_id: LaunchId, attempt: Attempt | None
    ) -> Observation:
        """Tell of a launch whose app is not known: it may be found by its labels."""
        found = await self._fleet.of_launch(launch_id, surely=self._sent_to(launch_id))
        if any(not (self._keeps and app.is_resting) for _, app in found):
            adopted = await self._adopted(launch_id)
            if adopted is not None:
                return await self._inspect_app(launch_id, *adopted)
        if attempt is not None and self._may_turn_up(launch_id, attempt):
            return Observation(Phase.PENDING, detail="looking for a lost app")
        return self._forgotten(launch_id)

    def _may_turn_up(self, launch_id: LaunchId, attempt: Attempt) -> bool:
        """Tell whether an app that no list shows may still have been made.

        Asked after a look that showed none: one such look is no proof.
        """
        now, sent_at = self._clock.now(), attempt.attempted_at
        if sent_at is None:
            return False
        is_certain = self._absences.is_certain(launch_id, now, sent_at=sent_at)
        return attempt.create_may_arrive(now) or not is_certain

    async def _inspect_unwanted(self, app_id: str) -> Observation:
        """Tell whether an app without a launch is gone."""
        for _, app in await self._fleet.everything(strictly=True):
            if app.id == app_id:
                return Observation(Phase.PENDING, detail=app.state.lower())
        return Observation(Phase.GONE)

    async def _look(self, launch_id: LaunchId, attempt: Attempt) -> App | None:
        """Return a launch's app; None if its region neither knows nor lists it."""
        assert attempt.instance_id is not None  # noqa: S101 - the callers looked
        try:
            app = await self._fleet.app(attempt.region, attempt.instance_id)
        except NotFoundError as error:
            listed = await self._fleet.in_region(attempt.region)
            if any(app.id == attempt.instance_id for app in listed):
                raise TransientError(f"{error}, and yet it is in the list") from error
            return None
        live = not app.is_resting
        self._attempts.note_look(launch_id, live=live)
        return app

    async def _inspect_app(
        self, launch_id: LaunchId, attempt: Attempt, app: App
    ) -> Observation:
        """Tell what an app's state means for its launch."""
        known = StateContext(
            keeps=self._keeps,
            told_to_stop=launch_id in self._told_to_stop,
            start_not_visible_yet=self._is_unshown(launch_id),
            waited_s=self._waited_s(attempt),
            queue_timeout_s=self._settings.queue_timeout,
            served=attempt.served,
        )
        thought, why = assess(app, known)
        match thought:
            case Assessment.GONE:
                self._resting += app.is_resting
                return self._forgotten(launch_id)
            case Assessment.MAYBE_READY:
                return await self._boot(launch_id, attempt, app)
            case Assessment.NO_CAPACITY:
                self._maker.note_full(attempt.region)
        phase = Phase.PENDING if thought is Assessment.PENDING else Phase.FAILED
        reason = "capacity" if thought is Assessment.NO_CAPACITY else ""
        report = ""
        if thought is Assessment.FAILED:
            report = await self._report(launch_id, attempt, app)
        return Observation(phase, detail=why, reason=reason, report=report)

    async def _report(self, launch_id: LaunchId, attempt: Attempt, app: App) -> str:
        """Return the end of a failed app's own log, once: then it is stopped."""
        if launch_id in self._told_to_stop or launch_id in self._reported:
            return ""
        self._reported.add(launch_id)
        secrets = secrets_in(self._settings)
        if attempt.identity:
            secrets.add(self._authority.token(LaunchId(attempt.identity)))
        return await last_lines(self._fleet.driver(attempt.region), app.id, secrets)

    def _is_unshown(self, launch_id: LaunchId) -> bool:
        attempt = self._attempts.get(launch_id)
        return attempt is not None and attempt.start_not_visible_yet(self._clock.now())

    def _waited_s(self, attempt: Attempt) -> float:
        return self._clock.now() - attempt.begun_at

    def _forgotten(self, launch_id: LaunchId) -> Observation:
        self._absences.end(launch_id)
        self._attempts.drop(launch_id)
        self._heard.pop(launch_id, None)
        self._told_to_stop.discard(launch_id)
        self._reported.discard(launch_id)
        return Observation(Phase.GONE)

    async def _boot(
        self, launch_id: LaunchId, attempt: Attempt, app: App
    ) -> Observation:
        """Tell whether an app's guard is heard; until then its gateway answers."""
        url = self._checked_url(app)
        if url is None:
            return Observation(Phase.PENDING, detail=app.state.lower())
        heard = self._heard.get(launch_id)
        if heard is not None and heard.url == url:
            return Observation(Phase.RUNNING, heard, app.id)
        upstream = Upstream(url, self._link(attempt.region, attempt.identity))
        sight = await self._guard.look(upstream)
        if sight.stage is None:
            return Observation(
                Phase.PENDING,
                upstream,
                app.state.lower(),
                problem=sight.problem,
                needs_person=sight.needs_person,
            )
        self._heard[launch_id] = upstream
        return Observation(Phase.RUNNING, upstream, app.id)

    def _checked_url(self, app: App) -> str | None:
        """Return an app's URL; the AI token is sent over TLS alone."""
        url = (app.status.url or "").rstrip("/")
        private = (self._settings.api_url or "").startswith("http://")
        if url.startswith("https://") or (url and private):
            return url
        return None

    def _link(self, region: str, identity: str | None) -> Link:
        """Return the link to an app: the gateway's token, and its guard's own."""
        token = self._settings.url_token(region)
        if token is None:
            raise CredentialsError(f"there is no token for {region}")
        headers = {}
        if identity:
            headers[GUARD_TOKEN] = self._authority.token(LaunchId(identity))
        setting = self._settings.url_token_setting(region)
        return Link(token, headers=headers, is_marked=True, settings=(setting,))

    async def renew(self, launch_id: LaunchId, *, serves: bool) -> None:
        """Put off the dead-man's switch, and now and then the end of the lease."""
        attempt = self._attempts.get(launch_id)
        if attempt is None or attempt.instance_id is None:
            return
        if (upstream := self._heard.get(launch_id)) is not None:
            await self._guard.renew(upstream)
        if serves:
            self._attempts.note_served(launch_id)
        driver = self._fleet.driver(attempt.region)
        app = await driver.app(attempt.instance_id)
        wall = self._clock.wall()
        if is_renewal_due(app.lease_end, wall, self._settings.lease):
            lease_end = f"{wall + self._settings.lease:.0f}"
            await driver.label(app.id, label_name("lease"), lease_end)

    async def stop(self, launch_id: LaunchId) -> None:
        """Go one step towards an app that costs nothing; `inspect` tells when."""
        self._heard.pop(launch_id, None)
        attempt = self._attempts.get(launch_id)
        if attempt is not None and attempt.create_not_sent:
            return
        if launch_id.startswith(_ORPHAN_PREFIX):
            await self._end_unwanted(launch_id.removeprefix(_ORPHAN_PREFIX))
            return
        self._told_to_stop.add(launch_id)
        if attempt is not None and attempt.instance_id is not None:
            app = await self._look(launch_id, attempt)
            if app is not None:
                unshown = self._is_unshown(launch_id)
                await self._fleet.end(
                    attempt.region, app, keep=self._keeps, again=unshown
                )
            return
        for region, app in await self._fleet.of_launch(launch_id):
            if attempt is not None:  # a creation whose answer was lost has turned up
                self._attempts.note_found(launch_id, app.id, live=not app.is_resting)
            await self._fleet.end(region, app, keep=self._keeps)

    async def _end_unwanted(self, app_id: str) -> None:
        """End an app that no launch has, if that is still so."""
        for region, app in await self._fleet.everything(strictly=True):
            if app.id == app_id and app.id not in self._attempts.instance_ids():
                await self._fleet.end(region, app, keep=False)

    async def owned(self) -> Collection[LaunchId]:
        """Name every launch that has an app which may cost something.

        One app per region that rests for the next launch belongs to none. One that
        rests and won't be started again is named by its own id, and likewise a second
        one of a launch: these are stopped as strays, which deletes them.
        """
        names: set[LaunchId] = set()
        kept: set[str] = set()
        for region, app in await self._fleet.everything():
            is_used = app.id in self._attempts.instance_ids()
            is_double = self._attempts.has_other(launch_of(app), app.id)
            if self._is_kept(app) and not is_used and region not in kept:
                kept.add(region)
            elif is_used or not (app.is_resting or is_double):
                names.add(self._launch_in_use(app))
            else:
                names.add(LaunchId(_ORPHAN_PREFIX + app.id))
        self._resting = len(kept)
        return names

    def _launch_in_use(self, app: App) -> LaunchId:
        """Return the launch that an app belongs to: as noted, else as labelled."""
        return self._attempts.launch_of(app.id) or launch_of(app)

    @property
    def prices(self) -> Prices:
        """Return what the app costs, by the settings; a stopped one is free."""
        return Prices(self._settings.price_per_hour, self._resting, 0.0)

    @property
    def unattended_s(self) -> float | None:
        """Return how long at most an app runs that no proxy renews: see `Order`.

        Not tried on a live account.
        """
        if self._settings.dead_man == "off":
            return None
        return self._settings.dead_man_timeout + SCALE_DOWN_S

    async def sweep_expired(self, *, dry_run: bool) -> list[str]:
        """Stop each app of any deployment whose lease is over."""
        return await self._fleet.sweep_expired(self._clock.wall(), dry_run=dry_run)

    def deploy(self, image: str) -> AsyncIterator[str]:
        """Do as `deploy_over` does; delete nothing that is not ours."""
        return self.deploy_over(image, ())

    async def deploy_over(
        self, image: str, names: Collection[str]
    ) -> AsyncIterator[str]:
        """Make the app that launches start, and stop it again; tell each step.

        Ours that are made otherwise are deleted before, for each may be billed, and so
        are those of our name that ``names`` has; a bucket stays. The image is noted
        before that: whatever ends this on the way, the next launch makes its app of the
        new one.
        """
        await self._check_deployment(image)
        with self._maker.trying(image):
            found = await self._fleet.everything(strictly=True)
            self._refuse_twins([self._owners.belonging(*one) for one in found])
            namesakes = to_replace(
                await self._namesakes.found(),
                name=self._settings.app_name,
                allowed=names,
                per_hour=self._settings.price_per_hour,
            )
            self._note_image(image)
            async for step in self._replaced(found):
                yield step
            for one in namesakes:
                async for step in self._namesakes.replaced(*one):
                    yield step
            for region, app in await self._fleet.everything(strictly=True):
                if self._fits(app):
                    yield Unchanged(f"{described(region, app)}: it is there already")
                    return
            yield f"an app is made of {image}, and stopped; until then it is billed"
            launch_id = LaunchId(f"{_DEPLOYED}{self._clock.now() * 1000.0:.0f}")
            try:
                await self.start(launch_id)
            finally:
                await surely_gone(self, launch_id)
        for line in await self.deployed():
            yield line

    def _fits(self, app: App) -> bool:
        """Tell whether an app is made as it is meant now."""
        return app.label("spec") == self._maker.spec

    async def _replaced(self, found: list[tuple[str, App]]) -> AsyncIterator[str]:
        """Stop and delete each app that is not as it is meant now; tell each step.

        A launch whose app is not known yet is waited for: it may turn up and be billed.
        One of a deployment that was killed is on nobody's record, and ends here.
        """
        fitting = {app.id for _, app in found if self._fits(app)}
        for launch_id in sorted(self._attempts.launches()):
            attempt = self._attempts.get(launch_id)
            fits = attempt is not None and attempt.instance_id in fitting
            if not fits or launch_id.startswith(_DEPLOYED):
                yield f"stopping the app of launch {launch_id}"
                await until_gone(self, launch_id)
        for region, app in found:
            if app.id not in fitting:
                yield f"deleting {described(region, app)}, of {app.spec.image}"
                await self._until_deleted(region, app)
        async for step in self._deleted_before():
            yield step

    async def _deleted_before(self) -> AsyncIterator[str]:
        """Wait for what is being deleted already; tell each step.

        A command that was killed had it deleted, and did not wait for the end.
        """
        for region, app in await self._fleet.leaving():
            yield f"waiting for {described(region, app)}, to be deleted"
            await self._until_forgotten(region, app)

    async def _until_deleted(self, region: str, app: App) -> None:
        """Delete an app, and wait until its id is known no more."""
        await until_gone(self, LaunchId(_ORPHAN_PREFIX + app.id))
        await self._until_forgotten(region, app)

    async def _until_forgotten(self, region: str, app: App) -> None:
        await self._fleet.until_forgotten(region, app.id, pause_s=self.traits.poll_s)

    async def _check_deployment(self, image: str) -> None:
        """Raise `SpecError` for what can't be deployed, before anything is made."""
        if not self._keeps:
            raise SpecError(
                "OVH_IDLE_ACTION=delete makes an app per launch, so there is nothing to"
                " deploy; set OVH_IMAGE to the image"
            )
        if self._settings.image not in {None, image}:
            raise SpecError(
                f"OVH_IMAGE is {self._settings.image!r}, which launches would use and"
                f" not {image!r}; remove the setting, or deploy that image"
            )
        from ollama_proxy.backends.ovh.check import require  # noqa: PLC0415 - rare

        await require(self._fleet.driver, self._settings, image)

    async def remove(self) -> AsyncIterator[str]:
        """Stop and delete every app of this deployment; tell each step.

        Launches that are noted are waited for, whatever the lists say. What a proxy on
        a copy of the state folder lives by is named, and nothing is touched.
        """
        found = await self._fleet.everything(strictly=True)
        self._refuse_twins([self._owners.belonging(*one) for one in found])
        for launch_id in sorted(self._attempts.launches()):
            yield f"stopping the app of launch {launch_id}"
            await until_gone(self, launch_id)
        for region, app in await self._fleet.everything(strictly=True):
            yield f"deleting {described(region, app)}"
            await self._until_deleted(region, app)
        async for step in self._deleted_before():
            yield step
        self._note_image(None)
        yield "nothing of this deployment is left"

    async def deployed(self) -> list[str]:
        """Return each app of this deployment, in words."""
        return [
            described(region, app) for region, app in await self._fleet.everything()
        ]

    async def aclose(self) -> None:
        """Close connections; apps stay as they are."""
        await self._guard.aclose()
        await self._fleet.aclose()

    async def check(self) -> list[Finding]:
        """Examine log-in, region, quota, flavour, image and volume; make nothing."""
        from ollama_proxy.backends.ovh.check import examine  # noqa: PLC0415 - rare

        return await examine(
            self._fleet.driver, self._settings, image=self._maker.image
        )


def open_backend(context: BackendContext, *, poll_s: float = 5.0) -> OvhBackend:
    """Build the backend from the settings ``ovh``.

    ``poll_s`` is the pause between two looks.
    """
    settings = context.options.get("ovh")
    if not isinstance(settings, OvhSettings):
        raise SettingsError(["ovh: the backend 'ovh' needs its settings"])
    if faults := settings.faults():
        raise SettingsError(faults)
    lifetime = context.options.get("max_lifetime")
    return OvhBackend(
        settings,
        owner_id=context.owner_id,
        remembers=context.remembers,
        attempts=Attempts(context.notes, context.clock.now()),
        authority=Authority(context.state_dir / "authority", context.clock),
        clock=context.clock,
        driver_of=partial(
            _open_driver, settings, context.state_dir, context.environment
        ),
        max_lifetime_s=lifetime if isinstance(lifetime, float) else None,
        poll_s=poll_s,
    )


def _open_driver(
    settings: OvhSettings, state_dir: Path, environment: Mapping[str, str], region: str
) -> Driver:
    if settings.speaks_rest:
        token = settings.api_token(region)
        if token is None:
            raise CredentialsError(
                f"there is no token for {region}; set OVH_AI_REGION_TOKENS={region}=…"
            )
        setting = settings.api_token_setting(region)
        return RestDriver(
            region, url=settings.url_of(region), token=token, setting=setting
        )
    password = settings.password
    return CliDriver(
        region,
        program=settings.ovhai_bin,
        home=state_dir / "ovhai" / region,
        template=home_folder(environment),
        environment=environment,
        username=settings.username,
        password=password.get_secret_value() if password is not None else None,
    )
