"""Have instances stand by: stopped, with their disk, for the next launch.

A standby instance has the certificate of the launch that it was bought for, named by
its label ``identity``. Its lease is the date until which it stands by.
"""

import contextlib
from datetime import UTC, datetime

import structlog
from msgspec.structs import replace

from ollama_proxy.backends.base.placement import Placement
from ollama_proxy.backends.base.provisioning_journal import ProvisioningRecord, unsent
from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.instances import (
    STANDBY,
    TAGS,
    Instance,
    read_instance,
)
from ollama_proxy.backends.exoscale.operations import OperationFailedError, settled
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    CredentialsError,
    NotFoundError,
    OutcomeUnknownError,
    SpecError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Prices

_STOP_LIMIT_S = 900.0
_START_TRIES = 3
_PASSING = frozenset({"busy", "conflict", "interrupted"})
"""Reasons of a failed start that will pass; any other may be a lack of room.

Inferred, as in `making`.
"""


class Standby:
    """Stops instances instead of deleting them, and starts them again."""

    def __init__(self, settings: ExoscaleSettings, *, clock: Clock) -> None:
        self.is_open = settings.idle_action == "stop"
        self._settings = settings
        self._clock = clock
        self._disks_gib: dict[str, int | None] = {}
        """The disk of each instance that stands by, by its id; None if unknown."""
        self._stopping_since: dict[str, float] = {}
        self._start_tries: dict[str, int] = {}
        self._log = structlog.get_logger()

    @property
    def prices(self) -> Prices:
        """Return the prices of running and stopped instances; None where unknown."""
        settings = self._settings
        each = settings.disk_price
        sizes = [size for size in self._disks_gib.values() if size is not None]
        is_known = each is not None and len(sizes) == len(self._disks_gib)
        standby = (each or 0.0) * sum(sizes) if is_known else None
        return Prices(settings.price_per_hour, len(self._disks_gib), standby)

    def count(self, instances: list[Instance]) -> None:
        """Remember the standby instances found by the last look at all zones.

        Lists have no disk sizes: those known from looks at single instances stay.
        """
        found = [instance.id for instance in instances if instance.is_standby]
        self._disks_gib = {name: self._disks_gib.get(name) for name in found}

    def forget(self, instance: Instance) -> None:
        """Forget an instance that does not stand by any more."""
        self._disks_gib.pop(instance.id, None)

    async def measure(self, api: ExoscaleApi, instance: Instance) -> None:
        """Remember the disk size of a standby instance: the settings may differ.

        If it can't be read, the price is unknown.
        """
        with contextlib.suppress(BackendError):
            seen = read_instance(await api.call("get_instance", id=instance.id))
            self._disks_gib[instance.id] = seen.disk_size

    def words(self, zone: str, instance: Instance) -> str:
        """Return what an instance is, until when it stands by, and its price."""
        size, each = self._disks_gib.get(instance.id), self._settings.disk_price
        disk = "a disk of unknown size" if size is None else f"a disk of {size} GiB"
        price = "price unknown"
        if size is not None and each is not None:
            price = f"{size * each:.4f} per hour"
        until = datetime.fromtimestamp(instance.lease_end or 0.0, UTC)
        return (
            f"stopped instance {instance.name} ({instance.id}) in {zone}, {disk},"
            f" {price}, kept until {until:%Y-%m-%d %H:%M} UTC;"
            " `ollama-proxy sweep --stopped` deletes it"
        )

    def is_over(self, instance: Instance) -> bool:
        """Tell whether an instance has stood by long enough, or is not wanted."""
        until = instance.lease_end or 0.0
        return not self.is_open or until < self._clock.wall()

    async def stop(
        self,
        api: ExoscaleApi,
        instance: Instance,
        record: ProvisioningRecord,
        launch: LaunchId,
    ) -> bool:
        """Go one step: stop a running instance, or have a stopped one stand by.

        The label is changed last: until then the instance belongs to its launch, and is
        billed. False if it can't be stopped, or not in time: then it must be deleted.
        """
        now = self._clock.now()
        begun_at = self._stopping_since.setdefault(instance.id, now)
        if instance.state != "stopped" and now - begun_at > _STOP_LIMIT_S:
            return False
        try:
            if instance.state == "running":
                await api.call("stop_instance", id=instance.id)
            elif instance.state == "stopped":
                until = self._clock.wall() + self._settings.destroy_after
                tags = {"launch": STANDBY, "lease": f"{until:.0f}"}
                tags["identity"] = record.identity or str(launch)
                labels = instance.labels | TAGS.spelt(tags)
                await api.call("update_instance", id=instance.id, labels=labels)
                del self._stopping_since[instance.id]
                self._disks_gib[instance.id] = instance.disk_size
        except (CredentialsError, SpecError) as error:
            self._note("stop of an idle instance", error)
            return False
        return True

    async def wake(
        self,
        api: ExoscaleApi,
        instance: Instance,
        launch: LaunchId,
        placement: Placement,
    ) -> ProvisioningRecord:
        """Give an instance that stands by to a launch; `start` starts it."""
        lease_end = self._clock.wall() + self._settings.lease
        tags = {"launch": str(launch), "lease": f"{lease_end:.0f}"}
        labels = instance.labels | TAGS.spelt(tags)
        await api.carry_out("update_instance", id=instance.id, labels=labels)
        self._disks_gib.pop(instance.id, None)
        identity = instance.labels.get("identity", "")
        return replace(
            unsent(placement),
            attempted_at=self._clock.now(),
            instance_id=instance.id,
            seen=True,
            identity=identity,
        )

    async def start(self, api: ExoscaleApi, record: ProvisioningRecord) -> bool:
        """Start a standby instance; False if that is refused, and it must be deleted.

        A lack of capacity is a refusal, whether the response or the operation reports
        it. A passing error is raised; after `_START_TRIES` of them it counts as a
        refusal.
        """
        instance_id = record.instance_id or ""
        try:
            begun = await api.call("start_instance", id=instance_id)
            await settled(api, begun, what="start_instance")
        except (CapacityError, NotFoundError, SpecError) as error:
            self._note("start of a stopped instance", error)
            return False
        except (OperationFailedError, OutcomeUnknownError) as error:
            self._note("start of a stopped instance", error)
            tries = self._start_tries.get(instance_id, 0) + 1
            self._start_tries[instance_id] = tries
            passes = (
                not isinstance(error, OperationFailedError) or error.why in _PASSING
            )
            if passes and tries < _START_TRIES:
                raise
            return False
        self._start_tries.pop(instance_id, None)
        return True

    def _note(self, call: str, error: BackendError) -> None:
        self._log.warning(
            log.INSTANCE_CALL_FAILED, call=call, reason=error.reason, error=str(error)
        )
