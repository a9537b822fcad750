"""Find the instances of a deployment among all others by their labels."""

from collections.abc import Sequence
from typing import Any

import msgspec

from ollama_proxy.base.errors import TransientError
from ollama_proxy.core.lifecycle.record import LaunchId

_MANAGER = "ollama-proxy"
PARKED = "parked"
"""The launch of an instance that is stopped, and kept for the next one."""

LEAVING = frozenset({"destroying", "destroyed", "expunging"})
"""States of what does not have to be deleted any more."""


class Instance(msgspec.Struct, frozen=True, rename="kebab"):
    """Describes one instance as the API shows it; nearly every key may be missing."""

    id: str
    name: str = ""
    state: str = "unknown"
    labels: dict[str, str] = {}
    public_ip: str | None = None
    created_at: str = ""
    manager: dict[str, Any] | None = None
    instance_type: dict[str, Any] = {}
    disk_size: int | None = None

    @property
    def is_parked(self) -> bool:
        """Tell whether it is kept for the next launch."""
        return self.labels.get("launch") == PARKED

    @property
    def lease_end(self) -> float | None:
        """Return until when it is marked as wanted, in epoch seconds."""
        text = self.labels.get("lease", "").removeprefix("t")
        return float(text) if text.isdecimal() else None


class OwnershipTags:
    """Holds the labels of one owner. Values begin with a letter and hold no ``:``."""

    def __init__(self, owner_id: str) -> None:
        self.owner = f"o{owner_id}"

    def of(self, launch_id: LaunchId, lease_end: float, spec: str) -> dict[str, str]:
        """Return the labels of a launch: the whole map, as an update wants it.

        ``spec`` tells instances apart that were made by different settings.
        """
        return {
            "managed-by": _MANAGER,
            "owner": self.owner,
            "launch": str(launch_id),
            "lease": f"t{lease_end:.0f}",
            "spec": spec,
        }

    def is_ours(self, instance: Instance) -> bool:
        """Tell whether we made it; what a pool manages is never touched."""
        return is_made_by_us(instance) and instance.labels.get("owner") == self.owner

    def changed(
        self, instance: Instance, launch_id: LaunchId, lease_end: float
    ) -> dict[str, str]:
        """Return the labels of an instance for another launch, or a later lease."""
        moved = {"launch": str(launch_id), "lease": f"t{lease_end:.0f}"}
        return instance.labels | moved

    def parked(self, instance: Instance, identity: str, until: float) -> dict[str, str]:
        """Return the labels of a stopped instance that is kept for the next launch."""
        return self.changed(instance, LaunchId(PARKED), until) | {"identity": identity}

    def launch_of(self, instance: Instance) -> LaunchId:
        """Return the launch that one of ours belongs to."""
        return LaunchId(instance.labels.get("launch", f"unlabelled-{instance.id}"))


def is_made_by_us(instance: Instance) -> bool:
    """Tell whether any deployment of this product made it."""
    return instance.labels.get("managed-by") == _MANAGER and not instance.manager


def read_instances(answer: dict[str, Any]) -> list[Instance]:
    """Return the instances of ``list-instances`` that can be read.

    What is nobody's business of ours may look as it likes; raises `TransientError`
    for one that we made.
    """
    found = []
    for raw in answer.get("instances") or []:
        try:
            found.append(read_instance(raw))
        except TransientError:
            if (raw.get("labels") or {}).get("managed-by") == _MANAGER:
                raise
    return found


def read_instance(answer: dict[str, Any]) -> Instance:
    """Return the instance of ``get-instance``; a null is as good as no key."""
    given = {key: value for key, value in answer.items() if value is not None}
    try:
        return msgspec.convert(given, Instance)
    except msgspec.ValidationError as error:
        message = f"Exoscale's answer about an instance can't be read: {error}"
        raise TransientError(message) from error


def oldest_first(instances: Sequence[Instance]) -> list[Instance]:
    """Return instances in the order in which they were made."""
    return sorted(instances, key=lambda one: (one.created_at, one.id))
