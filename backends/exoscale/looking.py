"""Inspect an instance: by the API, by its create operation, and by its guard."""

from dataclasses import replace
from functools import partial

from ollama_proxy.backends.base.cloud import StateContext
from ollama_proxy.backends.base.guard_client import (
    FAILED,
    READY,
    REASONS,
    BootStage,
)
from ollama_proxy.backends.base.managed import ManagedBackend
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningRecord,
)
from ollama_proxy.backends.exoscale.cloud import ExoscaleCloud
from ollama_proxy.backends.exoscale.evidence import (
    UNHEARD,
    cloud_report,
    given_up_report,
    step_report,
)
from ollama_proxy.backends.exoscale.firewall import (
    Firewall,
)
from ollama_proxy.backends.exoscale.instances import Instance
from ollama_proxy.backends.exoscale.making import Making, read_making
from ollama_proxy.backends.exoscale.owners import Owners
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.base.errors import (
    CapacityError,
    NotFoundError,
    SpecError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import (
    Observation,
    Phase,
    Upstream,
)
from ollama_proxy.upstream.certificates import Authority


class ExoscaleLooks(ManagedBackend[Instance, Owners]):
    """`inspect` and `report` of Exoscale's backend."""

    tags_noun = "labels"
    deleted_by = "delete it in the portal"
    passed_over = (CapacityError, NotFoundError, SpecError)
    _settings: ExoscaleSettings
    _authority: Authority
    _exoscale: ExoscaleCloud
    _firewall: Firewall
    _ready: dict[LaunchId, Upstream]

    def _context(self, launch_id: LaunchId, record: ProvisioningRecord) -> StateContext:
        return replace(super()._context(launch_id, record), standby=record.standby)

    async def _failed(
        self,
        launch_id: LaunchId,
        record: ProvisioningRecord,
        resource: Instance,
        why: str,
    ) -> Observation:
        """Report an instance that will not serve, or was destroyed before it did.

        A moment later its create operation shows the cause.
        """
        made = await self._note_room(record)
        if made.state == "pending" and record.create_may_arrive(self._clock.now()):
            return Observation(Phase.PENDING, detail="its making is not over")
        if resource.state == "destroyed":
            return self._forgotten_as(launch_id, made)
        report = made.told
        if not resource.is_leaving and launch_id not in self._told_to_stop:
            heard = launch_id in self._reached
            api = self._exoscale.api(record.location)
            report = await cloud_report(api, resource, made.told, heard=heard)
        detail = made.words or f"{why} ({resource.id} in {record.location})"
        return Observation(
            Phase.FAILED, detail=detail, reason=made.reason, report=report
        )

    async def report(self, launch_id: LaunchId) -> str:
        """Return what there is to read of a launch that is given up, in 40 lines."""
        record = self._journal.get(launch_id)
        if record is None or record.create_not_sent:
            return ""
        named = LaunchId(record.identity or launch_id)
        return await given_up_report(
            self._exoscale.api(record.location or self._settings.zone),
            self._guard,
            record,
            name=f"ollama-proxy-{launch_id}",
            upstream=self._reached.get(launch_id),
            token=self._authority.token(named),
            part_s=self._timing.given_up_s,
        )

    async def _inspect_vanished(
        self, launch_id: LaunchId, record: ProvisioningRecord
    ) -> Observation:
        """Report an instance that is unknown in the zone it was bought in.

        It may be unknown for a moment after the purchase.
        """
        made = await self._note_room(record)
        if self._is_not_shown_yet(record) and made.state in {"pending", "success"}:
            return Observation(Phase.PENDING, detail="bought, not yet listed")
        return self._forgotten_as(launch_id, made)

    def _forgotten(self, launch_id: LaunchId) -> Observation:
        self._ready.pop(launch_id, None)
        return super()._forgotten(launch_id)

    def _forgotten_as(self, launch_id: LaunchId, made: Making) -> Observation:
        """Forget a launch, and tell what became of the making of its instance."""
        report = made.told if made.has_failed else ""
        gone = self._forgotten(launch_id)
        return replace(gone, detail=made.words, reason=made.reason, report=report)

    async def _note_room(self, record: ProvisioningRecord) -> Making:
        """Return what became of the making; remember that there was no room."""
        if record.operation_id is None:
            return Making("unknown")
        api = self._exoscale.api(record.location)
        try:
            operation = await api.call("get_operation", id=record.operation_id)
        except NotFoundError:
            return Making("pending")
        made = read_making(operation, record.placement)
        if made.has_failed:
            self._room.note_full(record.placement)
        return made

    async def _boot(
        self, launch_id: LaunchId, record: ProvisioningRecord, resource: Instance
    ) -> Observation:
        """Tell how far a running instance is."""
        named = LaunchId(record.identity or launch_id)
        upstream = self._cloud.endpoint(record.location, resource, named)
        if upstream is None:
            return Observation(Phase.PENDING, detail=resource.state)
        if launch_id in self._ready and self._ready[launch_id].url == upstream.url:
            ready = self._ready[launch_id]
            return await self._served(record.location, resource, ready)
        sight = await self._guard.look(upstream)
        locked_out = await self._tend_firewall(record.location, resource, sight)
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
        self._ready[launch_id] = upstream
        spans = await self._guard.spans(upstream)
        driver = await self._guard.driver(upstream)
        host = resource.public_ip or ""
        return Observation(Phase.RUNNING, upstream, host, spans=spans, driver=driver)

    async def _served(
        self, zone: str, instance: Instance, upstream: Upstream
    ) -> Observation:
        """Tell of an instance that was ready once: it runs, and is reached or not."""
        sight = await self._guard.look(upstream)
        locked_out = await self._tend_firewall(zone, instance, sight)
        return Observation(
            Phase.RUNNING,
            upstream,
            instance.public_ip or "",
            problem=locked_out,
            notice=self._firewall.notice,
        )

    async def _tend_firewall(
        self, zone: str, instance: Instance, sight: BootStage
    ) -> str:
        """Have the security group follow our address; see `Firewall.tend`."""
        return await self._firewall.tend(
            self._exoscale.api(zone),
            reached=sight.stage is not None or sight.took_connection,
            names=(instance.id,),
            touch=partial(self._renew_lease, zone, instance),
        )
