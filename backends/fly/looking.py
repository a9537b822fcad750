"""Inspect a machine, and read Fly's events of one that has ended."""

from dataclasses import replace

from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningRecord,
)
from ollama_proxy.backends.fly.evidence import (
    NOTHING,
    Evidence,
    events_in,
    evidence,
    evidence_of,
    evidence_of_gone,
)
from ollama_proxy.backends.fly.machines import (
    STOPPED,
    Machine,
)
from ollama_proxy.backends.fly.slots import FlySlots
from ollama_proxy.backends.fly.volumes import Volumes
from ollama_proxy.base.errors import (
    BackendError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import (
    Observation,
    Phase,
)


class FlyLooks(FlySlots):
    """`inspect` and `report` of Fly's backend."""

    _volumes: Volumes
    _last_shown: dict[LaunchId, Machine]

    async def _look(
        self, launch_id: LaunchId, record: ProvisioningRecord
    ) -> Machine | None:
        machine = await super()._look(launch_id, record)
        if machine is not None:
            self._last_shown[launch_id] = machine
        return machine

    def _is_live(self, resource: Machine) -> bool:
        return resource.state not in STOPPED | {"created"}

    async def _inspect_nothing(self, launch_id: LaunchId) -> Observation:
        return await self._inspect_remains(launch_id)

    async def _inspect_remains(
        self, launch_id: LaunchId, told: Evidence = NOTHING
    ) -> Observation:
        """Tell of a launch without a machine: what it leaves may have to go first."""
        is_meant = launch_id in self._told_to_stop
        clears = not self._settings.keep_volume and is_meant
        if clears and await self._volumes.ours():
            return Observation(Phase.PENDING, detail="its volume is there still")
        return self._forgotten(launch_id, NOTHING if is_meant else told)

    async def _inspect_ended(
        self, launch_id: LaunchId, resource: Machine
    ) -> Observation:
        told = await self._evidence(launch_id, resource)
        return await self._inspect_remains(launch_id, told)

    async def _failed(
        self,
        launch_id: LaunchId,
        record: ProvisioningRecord,
        resource: Machine,
        why: str,
    ) -> Observation:
        told = await self._evidence(launch_id, resource)
        detail = f"{why}: {told.why}" if told.why else why
        return Observation(Phase.FAILED, detail=detail, report=told.report)

    async def _evidence(self, launch_id: LaunchId, machine: Machine) -> Evidence:
        """Return what a machine's events tell, unless we have ended it."""
        if launch_id in self._told_to_stop:
            return NOTHING
        return await evidence_of(self._api, machine)

    async def _inspect_lost(
        self, launch_id: LaunchId, record: ProvisioningRecord
    ) -> Observation:
        """Tell of a launch whose machine Fly does not know any more."""
        if launch_id in self._told_to_stop or record.instance_id is None:
            return await self._inspect_remains(launch_id)
        last = self._last_shown.get(launch_id)
        told = await evidence_of_gone(self._api, record.instance_id, last)
        return await self._inspect_remains(launch_id, told)

    async def report(self, launch_id: LaunchId) -> str:
        """Return the events of a launch's machine, which is given up."""
        record = self._journal.get(launch_id)
        if record is None or record.instance_id is None:
            return ""
        try:
            machine = await self._api.machine(record.instance_id)
        except BackendError as error:
            last = self._last_shown.get(launch_id)
            if last is None:
                return f"nothing could be fetched of the machine: {error}"
            return evidence(last, events_in(last.events)).report
        return (await evidence_of(self._api, machine)).report

    def _forgotten(self, launch_id: LaunchId, told: Evidence = NOTHING) -> Observation:
        self._last_shown.pop(launch_id, None)
        gone = super()._forgotten(launch_id)
        detail = f"the machine has ended: {told.why}" if told.why else ""
        return replace(gone, detail=detail, report=told.report)
