"""End instances: those of a launch, those of none, and those whose lease is over."""

from collections.abc import Collection, Sequence

from ollama_proxy.backends.base.cloud import R
from ollama_proxy.backends.base.expiry import sweep_expired
from ollama_proxy.backends.base.managed_core import ManagedCore, O
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningRecord,
)
from ollama_proxy.core.lifecycle.record import LaunchId


class Ending(ManagedCore[R, O]):
    """`stop`, `owned` and `sweep_expired` of a managed backend."""

    async def stop(self, launch_id: LaunchId) -> None:
        """Go one step towards no compute costs; `inspect` shows when it is done."""
        self._reached.pop(launch_id, None)
        record = self._journal.get(launch_id)
        if record is not None and record.create_not_sent:
            return
        if self._is_unwanted(launch_id):
            await self._end_unwanted(launch_id)
            return
        self._told_to_stop.add(launch_id)
        await self._stop(launch_id, record)

    async def _stop(
        self, launch_id: LaunchId, record: ProvisioningRecord | None
    ) -> None:
        """End every instance of a launch."""
        standby = self._uses_standby and self._may_stand_by(launch_id, record)
        for location, resource in await self._of_launch(launch_id, record):
            unshown = self._is_unshown(launch_id)
            await self._end(location, resource, standby=standby, again=unshown)

    def _may_stand_by(
        self, launch_id: LaunchId, record: ProvisioningRecord | None
    ) -> bool:
        """Tell whether a launch's instance may stand by for the next one."""
        return True

    async def _of_launch(
        self, launch_id: LaunchId, record: ProvisioningRecord | None
    ) -> list[tuple[str, R]]:
        """Return the instances of a launch: the noted one, else those with its tags."""
        if record is not None and record.instance_id is not None:
            resource = await self._look(launch_id, record)
            return [] if resource is None else [(self._location_of(record), resource)]
        found = await self._inventory.of_launch(launch_id)
        for _, resource in found if record is not None else ():
            # A create call whose answer was lost has made an instance after all.
            live = self._is_live(resource)
            self._journal.note_found(launch_id, resource.id, live=live)
        return found

    async def _end_unwanted(self, name: LaunchId) -> None:
        """End an instance that no launch has, if that is still so."""
        for location, resource in await self._inventory.everything(strictly=True):
            used = self._journal.instance_ids()
            if self.orphan_prefix + resource.id == name and resource.id not in used:
                await self._end(location, resource, standby=False)

    async def owned(self) -> Collection[LaunchId]:
        """Name every launch that has an instance which may cost more than its disk.

        One stopped instance per location stands by for the next launch and has no name
        here. Any other stopped instance that no launch will start is named by its own
        id, and so is a second instance of a launch. These are stopped as strays, which
        deletes them.
        """
        return self._owned_of(await self._inventory.everything())

    def _owned_of(self, found: Sequence[tuple[str, R]]) -> set[LaunchId]:
        """Name the launches that instances belong to, as `owned` does."""
        names: set[LaunchId] = set()
        standby: set[str] = set()
        for location, one in sorted(found, key=lambda one: self._worth(one[1])):
            is_used = one.id in self._journal.instance_ids()
            is_double = self._journal.has_other(one.launch, one.id)
            is_stopped = self._shows_stopped(one)
            if self._is_standby(one) and not is_used and location not in standby:
                standby.add(location)
            elif is_used or not (is_stopped or is_double):
                names.add(self._journal.launch_of(one.id) or one.launch)
            else:
                names.add(LaunchId(self.orphan_prefix + one.id))
        self._standby_count = len(standby)
        return names

    def _worth(self, resource: R) -> tuple[bool, ...]:
        """Order what is stopped: what the next launch would rather have comes first."""
        return ()

    def _is_standby(self, resource: R) -> bool:
        """Tell whether an instance is stopped, and is one that a launch would start."""
        return self._uses_standby and self._shows_stopped(resource)

    async def sweep_expired(self, *, dry_run: bool) -> list[str]:
        """End each instance of any deployment whose lease is over."""
        return await sweep_expired(
            self._cloud.locations(),
            listed=self._inventory.listed,
            is_expired=self._is_expired,
            described=self._described,
            end=None if dry_run else self._end_expired,
        )

    def _is_expired(self, resource: R) -> bool:
        """Tell whether an instance costs compute, and its lease has expired."""
        is_free = resource.is_leaving or resource.is_stopped
        is_over = resource.lease_end < self._clock.wall()
        return resource.is_made_by_us and not is_free and is_over

    async def _end_expired(self, location: str, resource: R) -> None:
        """End one instance whose lease has expired, of any deployment."""
        await self._cloud.delete(location, resource)
