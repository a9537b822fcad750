"""Map each launch to one instance, bought once and deleted for certain.

A create call has no key against repetition. So the purchase is noted before the
call, and after a lost answer the instance is looked for by its labels, until so
much time has passed that the call can't have arrived.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterator

import structlog

from ollama_proxy.backends.exoscale.advice import values_of
from ollama_proxy.backends.exoscale.api import ENDPOINT, ExoscaleApi
from ollama_proxy.backends.exoscale.buyer import Provisioner
from ollama_proxy.backends.exoscale.cards import least_gpus
from ollama_proxy.backends.exoscale.choices import SYSTEM_GIB
from ollama_proxy.backends.exoscale.evidence import (
    UNHEARD,
    cloud_report,
    given_up_report,
    step_report,
)
from ollama_proxy.backends.exoscale.firewall import (
    PORT,
    Firewall,
    group_name,
    remove_group,
)
from ollama_proxy.backends.exoscale.instances import (
    LEAVING,
    Instance,
    OwnershipTags,
    is_made_by_us,
    oldest_first,
    read_instance,
    read_instances,
)
from ollama_proxy.backends.exoscale.making import Making, read_making
from ollama_proxy.backends.exoscale.owners import Owners
from ollama_proxy.backends.exoscale.parking import Standby
from ollama_proxy.backends.exoscale.purchase import Ledger, Placement, Purchase
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.backends.exoscale.zones import Zones
from ollama_proxy.backends.guard import FAILED, READY, REASONS, BootStage, GuardClient
from ollama_proxy.backends.leases import is_renewal_due
from ollama_proxy.backends.patience import Sleep
from ollama_proxy.backends.seen_owners import SeesOwners
from ollama_proxy.backends.sightings import Absences, Sightings
from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    NotFoundError,
    OutcomeUnknownError,
    SettingsError,
    SpecError,
    StoreError,
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
from ollama_proxy.upstream.certificates import Authority

SETTLE_S = 150.0
"""After so long a create call whose answer was lost can't have arrived any more."""

_LOOKS = 2
_ORPHAN_PREFIX = "instance-"
"""Before an instance's id: the name under which the sweep deletes it alone."""

_USELESS = {
    "error": "Exoscale reports an error of the instance",
    "stopped": "the instance was powered off",
    "stopping": "the instance is being powered off",
    "destroying": "the instance is being destroyed",
    "expunging": "the instance is being destroyed",
}


class ExoscaleBackend(SeesOwners[Owners]):
    """Runs the instances of one deployment. ``api_of`` opens the API of a zone."""

    def __init__(
        self,
        settings: ExoscaleSettings,
        *,
        owner_id: str,
        remembers: Callable[[LaunchId], bool],
        ledger: Ledger,
        authority: Authority,
        clock: Clock,
        api_of: Callable[[str], ExoscaleApi],
        port: int,
        poll_s: float,
        models: Collection[str] = (),
    ) -> None:
        self._settings = settings
        self._owner_id = owner_id
        self._remembers = remembers
        self._labels = OwnershipTags(owner_id)
        self._ledger = ledger
        self._authority = authority
        self._clock = clock
        self._api_of = api_of
        self._port = port
        self._apis: dict[str, ExoscaleApi] = {}
        self._guard = GuardClient()
        self._firewall = Firewall(owner_id, settings.allowed_cidr, clock)
        self._sightings = Sightings[Instance](
            ledger.shown,
            ask=self._ask,
            is_over=self._is_over,
            save=ledger.note_shown,
        )
        self._absences = Absences()
        self._parking = Standby(settings, labels=self._labels, clock=clock)
        self._buyer = Provisioner(
            settings,
            labels=self._labels,
            firewall=self._firewall,
            ledger=ledger,
            authority=authority,
            clock=clock,
            api_of=self.api,
            models=models,
        )
        self._groups_left: set[str] = set()
        self._zones = Zones(settings, ledger.zones, self.api)
        self._owners = Owners(settings, zones=self.zones, api_of=self.api)
        self._heard: dict[LaunchId, Upstream] = {}
        self._reached: dict[LaunchId, Upstream] = {}
        self._missed: dict[LaunchId, int] = {}
        self._stopped: set[LaunchId] = set()
        self._log = structlog.get_logger()
        gpus = least_gpus((settings.instance_type, *settings.fallback_types))
        self.traits = Traits(
            starts_empty=settings.idle_action == "destroy",
            models_place=f"{settings.zone} {settings.template}",
            poll_s=poll_s,
            watch_s=30.0,
            renew_s=60.0,
            location=settings.zone,
            instance_type=settings.instance_type,
            alternatives=(*settings.fallback_types, *settings.fallback_zones),
            models_gib=settings.disk_size - SYSTEM_GIB[settings.engine],
            gpus=gpus and gpus[0],
            gpu_memory_gb=gpus and gpus[1],
        )

    def api(self, zone: str) -> ExoscaleApi:
        """Return the API of a zone."""
        if zone not in self._apis:
            self._apis[zone] = self._api_of(zone)
        return self._apis[zone]

    def zones(self) -> list[str]:
        """Return every zone in which there may be something of ours."""
        return self._zones.every()

    async def start(self, launch_id: LaunchId) -> None:
        """Buy the instance of a launch, unless it was bought already."""
        purchase = self._ledger.get(launch_id)
        if purchase is not None and purchase.instance_id is not None:
            if await self._start_parked(launch_id, purchase):
                return
            purchase = self._ledger.get(launch_id)
        await self._zones.check()
        if purchase is None:
            self._ledger.put(launch_id, Purchase(self._buyer.offers()[0]))
        for _ in self._looks_before_purchase(launch_id):
            if await self._adopted(launch_id):
                adopted = self._ledger.get(launch_id)
                if adopted is None or await self._start_parked(launch_id, adopted):
                    return
        if purchase is not None and self._may_turn_up(launch_id, purchase):
            raise OutcomeUnknownError(
                "the answer to a purchase was lost; it is looked for by its labels"
            )
        self._refuse_twins(await self._owners.instances())
        if not await self._unparked(launch_id):
            await self._buyer.buy(launch_id)

    def _looks_before_purchase(self, launch_id: LaunchId) -> Iterator[None]:
        """Yield for each look for an instance: lists may trail, so there are two.

        They are made once, however often the start is cut short after them: as long
        as no purchase was sent, none can turn up.
        """
        purchase = self._ledger.get(launch_id)
        if purchase is None or not purchase.create_not_sent:
            self._missed.pop(launch_id, None)
        while self._missed.get(launch_id, 0) < _LOOKS:
            yield
            self._missed[launch_id] = self._missed.get(launch_id, 0) + 1

    async def _unparked(self, launch_id: LaunchId) -> bool:
        """Take a stopped instance for a launch; False if none is kept that fits."""
        settings = self._settings
        types = (settings.instance_type, *settings.fallback_types)
        specs = {settings.spec_of(type_name) for type_name in types}
        for zone in self.zones() if self._parking.is_open else ():
            for instance in oldest_first(await self._ours_in(zone)):
                fits = instance.labels.get("spec") in specs and instance.is_parked
                stopped = instance.state == "stopped"
                if not fits or not stopped or self._parking.is_over(instance):
                    continue
                offer, api = Placement(zone, settings.instance_type), self.api(zone)
                await self._firewall.ensure(api)
                purchase = await self._parking.wake(api, instance, launch_id, offer)
                self._ledger.put(launch_id, purchase)
                return await self._start_parked(launch_id, purchase)
        return False

    async def _start_parked(self, launch_id: LaunchId, purchase: Purchase) -> bool:
        """Start a stopped instance; False once one that can't be started is deleted.

        Raises `TransientError` while it is still being deleted.
        """
        if purchase.identity is None:
            return True
        zone = purchase.offer.zone
        instance = await self._look(launch_id, purchase)
        if instance is None or instance.state in LEAVING:
            self._ledger.put(launch_id, Purchase(purchase.offer))
            return False
        if not purchase.doomed:
            if instance.state != "stopped":
                return True
            if await self._parking.start(self.api(zone), purchase):
                return True
            self._ledger.mark(launch_id, doomed=True)
        await self._delete(zone, instance)
        raise TransientError("a stopped instance that does not start is being deleted")

    def _is_unsettled(self, purchase: Purchase) -> bool:
        """Tell whether a purchase may still turn up."""
        sent_at = purchase.attempted_at
        return sent_at is not None and self._clock.now() - sent_at < SETTLE_S

    def _may_turn_up(self, launch_id: LaunchId, purchase: Purchase) -> bool:
        """Tell whether what no list shows may still have been bought.

        Asked after a look that showed none: one such look is no proof.
        """
        now, sent_at = self._clock.now(), purchase.attempted_at
        if sent_at is None:
            return False
        is_certain = self._absences.is_certain(launch_id, now, sent_at=sent_at)
        return self._is_unsettled(purchase) or not is_certain

    async def _adopted(self, launch_id: LaunchId) -> bool:
        """Note the instance that carries a launch's labels; False if none does.

        Of several the oldest stays: the others were bought by mistake.
        """
        found = await self._find(launch_id)
        if not found:
            return False
        self._absences.end(launch_id)
        (zone, first), *rest = found
        offer = Placement(zone, self._settings.instance_type)
        sent_at = self._clock.now()
        identity = first.labels.get("identity")
        purchase = Purchase(offer, sent_at, first.id, identity=identity)
        self._ledger.put(launch_id, purchase)
        for other_zone, other in rest:
            self._log.error(log.INSTANCE_DOUBLE, launch_id=launch_id, instance=other.id)
            await self._delete(other_zone, other)
        return True

    async def _find(self, launch_id: LaunchId) -> list[tuple[str, Instance]]:
        """Return a launch's instances that are not leaving, in all zones."""
        found = []
        for zone in self.zones():
            ours = await self._ours_in(zone)
            of_launch = [i for i in ours if self._labels.launch_of(i) == launch_id]
            found += [(zone, instance) for instance in oldest_first(of_launch)]
        return found

    async def _ours_in(self, zone: str) -> list[Instance]:
        """Return ours of a zone; what its list lacks and was shown is asked for."""
        answer = await self.api(zone).call("list_instances")
        listed = [one for one in read_instances(answer) if self._labels.is_ours(one)]
        return await self._sightings.complete(zone, listed)

    async def _ask(self, zone: str, instance_id: str) -> Instance:
        answer = await self.api(zone).call("get_instance", id=instance_id)
        return read_instance(answer)

    def _is_over(self, instance: Instance) -> bool:
        return instance.state in LEAVING or not self._labels.is_ours(instance)

    async def inspect(self, launch_id: LaunchId) -> Observation:
        """Look once, at the API and then at the instance itself."""
        purchase = self._ledger.get(launch_id)
        if purchase is not None and purchase.create_not_sent:
            return self._forgotten(launch_id)
        if purchase is None or purchase.instance_id is None:
            if not await self._adopted(launch_id):
                return self._absent(launch_id, purchase)
            purchase = self._ledger.get(launch_id)
        assert purchase is not None  # noqa: S101 - it was adopted
        instance = await self._look(launch_id, purchase)
        if instance is None:
            return await self._vanished(launch_id, purchase)
        kept = purchase.parked and instance.is_parked and instance.state == "stopped"
        if kept or (instance.state == "destroyed" and purchase.served):
            return self._forgotten(launch_id)
        useless = _USELESS.get(instance.state)
        if useless is not None or instance.state == "destroyed":
            return await self._broken(launch_id, purchase, instance)
        return await self._boot(launch_id, instance)

    async def _broken(
        self, launch_id: LaunchId, purchase: Purchase, instance: Instance
    ) -> Observation:
        """Tell of an instance that will not serve, or was destroyed before it did.

        Its create operation says why, a moment later.
        """
        made = await self._note_room(purchase)
        if made.state == "pending" and self._is_unsettled(purchase):
            return Observation(Phase.PENDING, detail="its making is not over")
        useless = _USELESS.get(instance.state)
        if useless is None:
            return self._forgotten(launch_id, made)
        report = made.told
        if instance.state not in LEAVING and launch_id not in self._stopped:
            heard = launch_id in self._reached
            api = self.api(purchase.offer.zone)
            report = await cloud_report(api, instance, made.told, heard=heard)
        detail = made.words or f"{useless} ({instance.id} in {purchase.offer.zone})"
        return Observation(
            Phase.FAILED, detail=detail, reason=made.reason, report=report
        )

    async def report(self, launch_id: LaunchId) -> str:
        """Return a report on a launch that is given up, in 40 lines."""
        purchase = self._ledger.get(launch_id)
        if purchase is None or purchase.create_not_sent:
            return ""
        named = LaunchId(purchase.identity or launch_id)
        return await given_up_report(
            self.api(purchase.offer.zone or self._settings.zone),
            self._guard,
            purchase,
            name=f"ollama-proxy-{launch_id}",
            upstream=self._reached.get(launch_id),
            token=self._authority.token(named),
        )

    async def _look(self, launch_id: LaunchId, purchase: Purchase) -> Instance | None:
        """Return what was bought, as its zone shows it; None if it knows no such id."""
        assert purchase.instance_id is not None  # noqa: S101 - the callers looked
        zone = purchase.offer.zone
        try:
            instance = await self._ask(zone, purchase.instance_id)
        except NotFoundError:
            return None
        self._sightings.note(zone, instance)
        if not purchase.seen:
            with contextlib.suppress(StoreError):  # a full disk keeps nothing running
                self._ledger.mark(launch_id, seen=True)
        return instance

    def _absent(self, launch_id: LaunchId, purchase: Purchase | None) -> Observation:
        """Tell of a launch of which nothing is found."""
        if purchase is not None and self._may_turn_up(launch_id, purchase):
            return Observation(Phase.PENDING, detail="looking for a lost purchase")
        return self._forgotten(launch_id)

    async def _vanished(self, launch_id: LaunchId, purchase: Purchase) -> Observation:
        """Tell of an instance that the zone it was bought in does not know.

        One that was just bought may be unknown for a moment.
        """
        made = await self._note_room(purchase)
        is_new = self._is_unsettled(purchase) and made.state in {"pending", "success"}
        if is_new and not purchase.seen:
            return Observation(Phase.PENDING, detail="bought, not yet listed")
        return self._forgotten(launch_id, made)

    def _forgotten(
        self, launch_id: LaunchId, made: Making | None = None
    ) -> Observation:
        self._missed.pop(launch_id, None)
        self._absences.end(launch_id)
        self._ledger.drop(launch_id)
        self._heard.pop(launch_id, None)
        self._reached.pop(launch_id, None)
        self._stopped.discard(launch_id)
        if made is None:
            return Observation(Phase.GONE)
        report = made.told if made.has_failed else ""
        return Observation(
            Phase.GONE, detail=made.words, reason=made.reason, report=report
        )

    async def _note_room(self, purchase: Purchase) -> Making:
        """Return what became of the making; remember that there was no room."""
        if purchase.operation_id is None:
            return Making("unknown")
        api = self.api(purchase.offer.zone)
        try:
            operation = await api.call("get_operation", id=purchase.operation_id)
        except NotFoundError:
            return Making("pending")
        made = read_making(operation, purchase.offer)
        if made.has_failed:
            self._buyer.note_full(purchase.offer)
        return made

    async def _boot(self, launch_id: LaunchId, instance: Instance) -> Observation:
        """Tell how far a running instance is."""
        if instance.state != "running" or not instance.public_ip:
            return Observation(Phase.PENDING, detail=instance.state)
        host = instance.public_ip
        address = f"[{host}]" if ":" in host else host
        url = f"https://{address}:{self._port}"
        if launch_id in self._heard and self._heard[launch_id].url == url:
            return await self._served(launch_id, instance, self._heard[launch_id])
        purchase = self._ledger.get(launch_id)
        identity = purchase.identity if purchase is not None else None
        named = LaunchId(identity) if identity else launch_id
        upstream = Upstream(url, self._authority.link(named))
        sight = await self._guard.look(upstream)
        locked_out = await self._tend_firewall(launch_id, instance, sight)
        if (stage := sight.stage) is None:
            detail, problem = "running, not yet heard of", sight.problem
            if launch_id not in self._reached:
                problem = f"{UNHEARD}: {problem}"
            notice = locked_out or self._firewall.notice
            return Observation(
                Phase.PENDING,
                upstream,
                detail,
                problem="; ".join(words for words in (problem, notice) if words),
                needs_person=sight.needs_person,
            )
        self._reached[launch_id] = upstream
        if stage.startswith(FAILED):
            step = stage.removeprefix(FAILED)
            token = self._authority.token(named)
            detail, report = await step_report(self._guard, upstream, step, token)
            reason = step if step in REASONS else ""
            return Observation(Phase.FAILED, upstream, detail, reason, report=report)
        if stage != READY:
            detail = f"setting up {stage}"
            return Observation(Phase.PENDING, upstream, detail, step=stage)
        self._heard[launch_id] = upstream
        spans = await self._guard.spans(upstream)
        driver = await self._guard.driver(upstream)
        return Observation(Phase.RUNNING, upstream, host, spans=spans, driver=driver)

    async def _served(
        self, launch_id: LaunchId, instance: Instance, upstream: Upstream
    ) -> Observation:
        """Tell of an instance that was ready once: it runs, and is reached or not."""
        sight = await self._guard.look(upstream)
        locked_out = await self._tend_firewall(launch_id, instance, sight)
        return Observation(
            Phase.RUNNING,
            upstream,
            instance.public_ip or "",
            problem=locked_out,
            notice=self._firewall.notice,
        )

    async def _tend_firewall(
        self, launch_id: LaunchId, instance: Instance, sight: BootStage
    ) -> str:
        """Have the security group follow our address; see `Firewall.tend`."""
        purchase = self._ledger.get(launch_id)
        zone = purchase.offer.zone if purchase is not None else self._settings.zone
        api = self.api(zone)

        async def prolong_lease() -> None:
            lease_end = self._clock.wall() + self._settings.lease
            labels = self._labels.changed(instance, launch_id, lease_end)
            await api.call("update_instance", id=instance.id, labels=labels)

        reached = sight.stage is not None or sight.took_connection
        return await self._firewall.tend(
            api, reached=reached, names=(instance.id,), touch=prolong_lease
        )

    async def renew(self, launch_id: LaunchId, *, serves: bool) -> None:
        """Put off the dead-man's switch, and now and then the end of the lease."""
        purchase = self._ledger.get(launch_id)
        if purchase is None or purchase.instance_id is None:
            return
        if (upstream := self._reached.get(launch_id)) is not None:
            await self._guard.renew(upstream)
        if serves and not purchase.served:
            with contextlib.suppress(StoreError):  # a full disk silences no heartbeat
                self._ledger.mark(launch_id, served=True)
        api = self.api(purchase.offer.zone)
        answer = await api.call("get_instance", id=purchase.instance_id)
        instance = read_instance(answer)
        lease_end, wall = instance.lease_end or 0.0, self._clock.wall()
        if is_renewal_due(lease_end, wall, self._settings.lease):
            lease_end = wall + self._settings.lease
            labels = self._labels.changed(instance, launch_id, lease_end)
            await api.call("update_instance", id=purchase.instance_id, labels=labels)

    async def stop(self, launch_id: LaunchId) -> None:
        """Delete every instance of a launch; `inspect` shows when that is done."""
        self._stopped.add(launch_id)
        self._heard.pop(launch_id, None)
        self._reached.pop(launch_id, None)
        purchase = self._ledger.get(launch_id)
        if purchase is not None and purchase.create_not_sent:
            return
        if launch_id.startswith(_ORPHAN_PREFIX):
            await self._delete_unwanted(launch_id.removeprefix(_ORPHAN_PREFIX))
            return
        if purchase is not None and purchase.instance_id is not None:
            bought = await self._look(launch_id, purchase)
            if bought is not None and bought.state not in LEAVING:
                await self._end(launch_id, purchase, bought)
            return
        for zone, instance in await self._find(launch_id):
            await self._delete(zone, instance)

    async def _end(
        self, launch_id: LaunchId, purchase: Purchase, instance: Instance
    ) -> None:
        """Stop and keep an instance that served, by the settings; delete any other."""
        zone = purchase.offer.zone
        if purchase.parked and instance.is_parked and instance.state == "stopped":
            return
        keep = self._parking.is_open and purchase.served
        if keep and instance.state in {"running", "stopping", "stopped"}:
            with contextlib.suppress(StoreError):  # what can't be noted is deleted
                if not purchase.parked:
                    purchase = self._ledger.mark(launch_id, parked=True, seen=True)
                api = self.api(zone)
                if await self._parking.park(api, instance, purchase, launch_id):
                    return
        await self._delete(zone, instance)

    async def _delete_unwanted(self, instance_id: str) -> None:
        """Delete an instance that no launch has, if that is still so."""
        for zone in self.zones():
            for instance in await self._ours_in(zone):
                if instance.id == instance_id and not self._is_used(instance):
                    await self._delete(zone, instance)

    def _is_used(self, instance: Instance) -> bool:
        """Tell whether a launch that is known has it, whatever its label still says."""
        return instance.id in self._ledger.instance_ids()

    async def _delete(self, zone: str, instance: Instance) -> None:
        """Delete one instance, if its labels say that it is ours."""
        if not self._labels.is_ours(instance):
            raise TransientError(
                f"the instance {instance.id} in {zone} does not carry our labels any "
                "more, so it is left alone; delete it in the portal"
            )
        try:
            await self.api(zone).call("delete_instance", id=instance.id)
        except NotFoundError:
            return

    async def owned(self) -> Collection[LaunchId]:
        """Name every launch that has an instance, in every zone.

        An instance that is parked belongs to none, and is named, by its own id, only
        when it was kept long enough or runs; likewise a second one of a launch. So
        these are stopped as strays, which deletes them. That there are none is not
        said while a zone of the settings does not exist: another one was meant.
        """
        problem = await self._zones.problem()
        looks: list[Awaitable[list[Instance]]] = [
            self._ours_in(zone) for zone in self.zones()
        ]
        listed = dict(zip(self.zones(), await asyncio.gather(*looks), strict=True))
        found = [one for zone in listed.values() for one in zone]
        self._parking.count(found)
        for zone, ones in listed.items():
            for one in ones:
                if one.is_parked:
                    await self._parking.measure(self.api(zone), one)
        parked = [one for one in found if one.is_parked]
        unwanted = [
            one
            for one in parked
            if self._parking.is_over(one) or one.state not in {"stopping", "stopped"}
        ]
        launched = [one for one in found if one not in parked]
        unwanted += [one for one in launched if self._is_double(one)]
        strays = {_ORPHAN_PREFIX + one.id for one in unwanted if not self._is_used(one)}
        launches = {self._labels.launch_of(one) for one in launched}
        if problem is not None and not launches | strays:
            raise problem
        return launches | {LaunchId(name) for name in strays}

    async def kept(self) -> list[str]:
        """Return each instance that is kept for the next launch, with its price."""
        return [self._parking.words(zone, one) for zone, one in await self._kept_ones()]

    async def release(self, *, dry_run: bool) -> list[str]:
        """Delete what is kept for the next launch, before its time is over."""
        released = []
        for zone, one in await self._kept_ones():
            released.append(f"{one.name} in {zone} ({one.state})")
            if not dry_run:
                await self._delete(zone, one)
                self._parking.forget(one)
        return released

    async def _kept_ones(self) -> list[tuple[str, Instance]]:
        """Return what is kept and no launch has taken, with the size of its disk."""
        kept = [
            (zone, one)
            for zone in self.zones()
            for one in await self._ours_in(zone)
            if one.is_parked and not self._is_used(one)
        ]
        for zone, one in kept:
            await self._parking.measure(self.api(zone), one)
        return kept

    def _is_double(self, instance: Instance) -> bool:
        """Tell whether its launch has another one: a lost purchase came very late."""
        purchase = self._ledger.get(self._labels.launch_of(instance))
        known = purchase.instance_id if purchase is not None else None
        return known is not None and known != instance.id

    async def tidy(self) -> None:
        """Delete the security group, unless an instance of ours needs it.

        And those of the instances that `sweep_expired` has deleted.
        """
        api = self.api(self._settings.zone)
        for name in sorted(self._groups_left):
            await remove_group(api, name)
            self._groups_left.discard(name)
        for zone in self.zones():
            if await self._ours_in(zone):
                return
        await self._firewall.remove(api)

    @property
    def prices(self) -> Prices:
        """Return what instances cost, as the settings have it."""
        return self._parking.prices

    async def sweep_expired(self, *, dry_run: bool) -> list[str]:
        """Delete each instance of any deployment whose lease is over."""
        swept: list[str] = []
        problem: BackendError | None = None
        for zone in self.zones():
            try:
                await self._sweep_expired_in(zone, swept, dry_run=dry_run)
            except BackendError as error:
                problem = error  # the other zones are swept all the same
        if problem is not None:
            raise problem
        return swept

    async def _sweep_expired_in(
        self, zone: str, swept: list[str], *, dry_run: bool
    ) -> None:
        answer = await self.api(zone).call("list_instances")
        for instance in read_instances(answer):
            if not self._is_expired(instance):
                continue
            swept.append(f"{instance.name} in {zone} ({instance.state})")
            if not dry_run:
                with contextlib.suppress(NotFoundError):
                    await self.api(zone).call("delete_instance", id=instance.id)
                owner = instance.labels.get("owner", "").removeprefix("o")
                self._groups_left.add(group_name(owner))

    def _is_expired(self, instance: Instance) -> bool:
        """Tell whether an instance's lease has expired."""
        if not is_made_by_us(instance) or instance.state in LEAVING:
            return False
        return (instance.lease_end or 0.0) < self._clock.wall()

    async def aclose(self) -> None:
        """Close connections; instances stay as they are."""
        await self._guard.aclose()
        for api in self._apis.values():
            api.close()

    async def check(self) -> list[Finding]:
        """Examine key, rights, type, quota, template and disk; buy nothing."""
        from ollama_proxy.backends.exoscale.check import examine  # noqa: PLC0415 - rare
        from ollama_proxy.backends.exoscale.stopped_gpus import (  # noqa: PLC0415 - rare
            stopped_gpus,
        )

        try:
            await self._zones.check()
        except SpecError as error:
            return [Finding("zone", ok=False, detail=str(error))]
        settings = self._settings
        findings = await examine(self.api(settings.zone), settings)
        if not findings[0].ok:
            return findings
        zones, disk_price = self.zones(), settings.disk_price
        return findings + await stopped_gpus(zones, self.api, disk_price)


def open_backend(
    context: BackendContext,
    *,
    port: int = PORT,
    poll_s: float = 5.0,
    sleep: Sleep = asyncio.sleep,
) -> ExoscaleBackend:
    """Build the backend from the settings ``exoscale``.

    ``port`` is where guards listen, ``poll_s`` the pause between two looks, ``sleep``
    what waits as the API asks.
    """
    settings = context.options.get("exoscale")
    if not isinstance(settings, ExoscaleSettings) or not settings.has_credentials:
        raise SettingsError(
            ["EXOSCALE_API_KEY, EXOSCALE_API_SECRET: the backend 'exoscale' needs both"]
        )
    key, secret = settings.api_key or "", settings.api_secret
    models = context.options.get("models")
    assert secret is not None  # noqa: S101 - has_credentials

    def api_of(zone: str) -> ExoscaleApi:
        return ExoscaleApi(
            zone,
            endpoint=settings.api_endpoint or ENDPOINT,
            key=key,
            secret=secret.get_secret_value(),
            clock=context.clock,
            sleep=sleep,
            values=values_of(settings),
        )

    return ExoscaleBackend(
        settings,
        owner_id=context.owner_id,
        remembers=context.remembers,
        ledger=Ledger(context.notes, context.clock.now()),
        authority=Authority(context.state_dir / "authority", context.clock),
        clock=context.clock,
        api_of=api_of,
        port=port,
        poll_s=poll_s,
        models=models if isinstance(models, tuple) else (),
    )
