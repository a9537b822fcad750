"""Find a machine for a launch by its name, which serves as a lock.

Names of machines are unique within an app. So a name is both an idempotency key and a
lock against a second proxy: the first free one of ``ollama-proxy-0``, ``-1`` … is
requested, and after a 409 the proxy checks whose machine it is. A machine is made
without running, and started by a separate call.
"""

import contextlib
from collections.abc import Sequence

from ollama_proxy.backends.base.managed import ManagedBackend
from ollama_proxy.backends.base.ownership_tags import oldest_first
from ollama_proxy.backends.base.placement import Placement
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningRecord,
    unsent,
)
from ollama_proxy.backends.base.reservations import reserving
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.cloud import FlyCloud
from ollama_proxy.backends.fly.failures import NameTakenError
from ollama_proxy.backends.fly.machines import STOPPED, Machine
from ollama_proxy.backends.fly.owners import Owners
from ollama_proxy.backends.fly.provisioner import Provisioner
from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.base.errors import (
    CapacityError,
    ConflictError,
    NotFoundError,
    SpecError,
    TransientError,
)
from ollama_proxy.core.lifecycle.record import LaunchId

_NAME = "ollama-proxy-"
_MAX_SLOTS = 10


class FlySlots(ManagedBackend[Machine, Owners]):
    """`start` of Fly's backend."""

    noun = "machine"
    orphan_prefix = "machine-"
    tags_noun = "marks"
    deleted_by = "destroy it with `fly machine destroy`"
    _settings: FlySettings
    _api: FlyApi
    _fly: FlyCloud
    _provisioner: Provisioner
    _being_made: set[str]

    def _placements(self) -> list[Placement]:
        return [Placement(region) for region in self._settings.regions]

    async def _start_another(self, launch_id: LaunchId) -> None:
        """Start a machine that carries a launch's marks, or that of the first slot."""
        if self._journal.get(launch_id) is None:
            self._journal.put(launch_id, unsent(self._placements()[0]))
        machines = await self._machines()
        if self._fly.missing is not None:
            raise SpecError(str(self._fly.missing)) from self._fly.missing
        for machine in oldest_first(self._ours(machines)):
            if machine.launch == launch_id:
                await self._take(launch_id, machine)
                return
        self._refuse_twins(self._owners.of(machines))
        await self._take_a_slot(launch_id, machines)

    async def _machines(self) -> list[Machine]:
        """Return every machine of the app; none if there is no such app."""
        return await self._inventory.listed(self._api.app)

    def _ours(self, machines: Sequence[Machine]) -> list[Machine]:
        return [
            one for one in machines if self._tags.is_ours(one) and not one.is_leaving
        ]

    async def _take_a_slot(self, launch_id: LaunchId, machines: list[Machine]) -> None:
        """Take the machine of the first slot that is free, or make one for it."""
        by_name = {one.name: one for one in machines if not one.is_leaving}
        for number in range(_MAX_SLOTS):
            name = f"{_NAME}{number}"
            machine = by_name.get(name)
            if name in self._being_made:
                continue
            if machine is None:
                try:
                    await self._make_named(launch_id, name)
                except NameTakenError as error:
                    machine = await self._api.machine(error.machine_id)
                    self._refuse_twins(self._owners.of([machine]))
                else:
                    return
            self._refuse_strangers(machine)
            if machine.is_leaving:
                raise ConflictError(f"the machine {machine.id} is being destroyed")
            is_stopped = machine.state in STOPPED
            if machine.host_status == "unreachable" and is_stopped:
                continue  # it can't be started now
            is_used = self._is_used_by_another(machine, launch_id)
            if machine.launch == launch_id or (machine.is_stopped and not is_used):
                await self._take(launch_id, machine)
                return
            if not is_used:
                await self._end(self._api.app, machine, standby=self._uses_standby)
                raise ConflictError(
                    f"the machine {machine.id} is {machine.state} for an unknown"
                    " launch, and is ended first"
                )
        raise CapacityError(f"the app has {_MAX_SLOTS} machines already")

    async def _make_named(self, launch_id: LaunchId, name: str) -> None:
        """Make a machine of a name that no other launch uses meanwhile."""
        with reserving(self._being_made, name):
            await self._provisioner.make(launch_id, name)

    def _is_used_by_another(self, machine: Machine, launch_id: LaunchId) -> bool:
        """Tell whether a machine belongs to another launch that is known.

        Its id may not be noted yet: then its tag names the launch.
        """
        if machine.id in self._journal.instance_ids():
            return True
        others = self._journal.launches() - {launch_id}
        return machine.launch in others and not machine.is_stopped

    def _refuse_strangers(self, machine: Machine) -> None:
        """Raise `SpecError` for another deployment's machine: the app is taken."""
        is_told = bool(machine.config or machine.incomplete_config)
        if machine.host_status == "unreachable" and not is_told:
            raise TransientError(
                f"the host of the machine {machine.id} can't be reached, so its"
                " owner is unknown"
            )
        if not self._tags.is_ours(machine):
            raise SpecError(
                f"the app {self._api.app!r} has a machine {machine.name!r} of another"
                " deployment; give each an app of its own (FLY_APP), or destroy that"
                f" machine: `fly machine destroy {machine.id}`"
            )

    def _found(self, machine: Machine) -> ProvisioningRecord:
        """Return the record of a launch to which a machine is given."""
        return ProvisioningRecord(
            machine.region or self._settings.region,
            attempted_at=self._clock.now(),
            instance_id=machine.id,
            identity=machine.tag("identity"),
            seen=True,
        )

    async def _take(self, launch_id: LaunchId, machine: Machine) -> None:
        """Note a machine for a launch, and have it run."""
        record = self._found(machine)
        self._journal.put(launch_id, record)
        await self._run(launch_id, self._api.app, machine)

    async def _run(self, launch_id: LaunchId, location: str, resource: Machine) -> None:
        """Start a machine for a launch, unless it runs; replace one without room."""
        machine = resource
        if machine.launch != launch_id:
            await self._cloud.tag(location, machine, {"launch": str(launch_id)})
        if not (machine.is_stopped or machine.state == "created"):
            return
        if bool(machine.volume) != (self._settings.volume_gb > 0):
            await self._end(self._api.app, machine, standby=False)
            self._journal.put(launch_id, unsent(self._placements()[0]))
            told = "with" if self._settings.volume_gb else "without"
            raise ConflictError(f"the machine is made anew, {told} a volume")
        self._standby_count = max(0, self._standby_count - machine.is_stopped)
        self._journal.update(launch_id, started_at=self._clock.now(), seen_live=False)
        await self._renew_lease(location, machine)
        try:
            async with self._api.machine_lock(machine.id) as nonce:
                if machine.tag("spec") != self._provisioner.spec:
                    identity = machine.tag("identity") or str(launch_id)
                    volume = machine.volume
                    config = self._provisioner.config(launch_id, identity, volume)
                    machine = await self._api.update(machine, config, nonce)
                await self._api.start(machine.id, nonce)
        except CapacityError as error:
            # Its volume binds it to a full host: make it again elsewhere.
            if machine.volume is not None:
                self._provisioner.stuck.add(machine.volume)
            with contextlib.suppress(NotFoundError):
                await self._api.destroy(machine.id, None)
            self._journal.put(launch_id, unsent(self._placements()[0]))
            raise ConflictError(f"{error}; it is made anew on another host") from error
