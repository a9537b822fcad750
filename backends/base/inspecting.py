"""Inspect a launch: look at its cloud, and then at its instance."""

from ollama_proxy.backends.base.cloud import Assessment, R, StateContext
from ollama_proxy.backends.base.managed_core import ManagedCore, O
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningRecord,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Observation, Phase


class Inspecting(ManagedCore[R, O]):
    """`inspect` of a managed backend."""

    async def inspect(self, launch_id: LaunchId) -> Observation:
        """Look once, at the cloud and then at the instance itself."""
        if self._is_unwanted(launch_id):
            return await self._inspect_unwanted(launch_id)
        record = self._journal.get(launch_id)
        if record is not None and record.create_not_sent:
            return self._forgotten(launch_id)
        if record is None or record.instance_id is None:
            return await self._inspect_unknown(launch_id, record)
        resource = await self._look(launch_id, record)
        if resource is not None:
            return await self._inspect_resource(launch_id, record, resource)
        return await self._inspect_vanished(launch_id, record)

    async def _inspect_unwanted(self, name: LaunchId) -> Observation:
        """Tell whether an instance that no launch has is gone."""
        for _, resource in await self._inventory.everything(strictly=True):
            if self.orphan_prefix + resource.id == name:
                return Observation(Phase.PENDING, detail=resource.state_in_words)
        return Observation(Phase.GONE)

    async def _inspect_unknown(
        self, launch_id: LaunchId, record: ProvisioningRecord | None
    ) -> Observation:
        """Tell of a launch whose instance is not known: its tags may tell."""
        sent_to = self._sent_to(launch_id)
        found = await self._inventory.of_launch(launch_id, surely=sent_to)
        if any(not (self._uses_standby and one.is_stopped) for _, one in found):
            adopted = await self._adopt(launch_id, found)
            if adopted is not None:
                return await self._inspect_resource(launch_id, *adopted)
        if record is not None and self._may_turn_up(launch_id, record):
            return Observation(Phase.PENDING, detail=f"looking for a lost {self.noun}")
        return await self._inspect_nothing(launch_id)

    async def _inspect_vanished(
        self, launch_id: LaunchId, record: ProvisioningRecord
    ) -> Observation:
        """Tell of a launch whose instance the cloud does not know."""
        if self._is_not_shown_yet(record):
            return Observation(Phase.PENDING, detail="made, not yet shown")
        return await self._inspect_lost(launch_id, record)

    async def _inspect_lost(
        self, launch_id: LaunchId, record: ProvisioningRecord
    ) -> Observation:
        """Tell of a launch whose instance is gone, and was shown before."""
        return await self._inspect_nothing(launch_id)

    async def _inspect_resource(
        self, launch_id: LaunchId, record: ProvisioningRecord, resource: R
    ) -> Observation:
        """Tell what an instance's state means for its launch."""
        thought, why = self._cloud.assess(resource, self._context(launch_id, record))
        match thought:
            case Assessment.PENDING:
                return Observation(Phase.PENDING, detail=why)
            case Assessment.MAYBE_READY:
                return await self._boot(launch_id, record, resource)
            case Assessment.GONE:
                self._standby_count += resource.is_stopped
                return await self._inspect_ended(launch_id, resource)
            case Assessment.NO_CAPACITY:
                self._room.note_full(record.placement)
                return Observation(Phase.FAILED, detail=why, reason="capacity")
            case Assessment.FAILED:
                return await self._failed(launch_id, record, resource, why)

    def _context(self, launch_id: LaunchId, record: ProvisioningRecord) -> StateContext:
        """Return the circumstances of a launch besides its instance's state."""
        return StateContext(
            standby=self._uses_standby,
            told_to_stop=launch_id in self._told_to_stop,
            start_not_visible_yet=self._is_unshown(launch_id),
            waited_s=self._clock.now() - record.begun_at,
            served=record.served,
        )

    async def _failed(
        self, launch_id: LaunchId, record: ProvisioningRecord, resource: R, why: str
    ) -> Observation:
        """Tell of an instance that will never serve by itself."""
        return Observation(Phase.FAILED, detail=why)

    async def _inspect_ended(self, launch_id: LaunchId, resource: R) -> Observation:
        """Tell of a launch whose instance is shown as gone, or as stopped."""
        return await self._inspect_nothing(launch_id)

    async def _inspect_nothing(self, launch_id: LaunchId) -> Observation:
        """Tell of a launch without an instance."""
        return self._forgotten(launch_id)

    async def _boot(
        self, launch_id: LaunchId, record: ProvisioningRecord, resource: R
    ) -> Observation:
        """Check whether an instance's guard answers; before that, a gateway may."""
        location = self._location_of(record)
        upstream = self._cloud.endpoint(location, resource, record.identity)
        if upstream is None:
            return Observation(Phase.PENDING, detail=resource.state_in_words)
        reached = self._reached.get(launch_id)
        if reached is not None and reached.url == upstream.url:
            return Observation(Phase.RUNNING, reached, resource.id)
        sight = await self._guard.look(upstream)
        if sight.stage is None:
            return Observation(
                Phase.PENDING,
                upstream,
                resource.state_in_words,
                problem=sight.problem,
                needs_person=sight.needs_person,
            )
        self._reached[launch_id] = upstream
        return Observation(Phase.RUNNING, upstream, resource.id)
