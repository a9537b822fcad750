"""Find the machines and volumes of a deployment among all others by their metadata."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from ollama_proxy.base.errors import TransientError
from ollama_proxy.core.lifecycle.record import LaunchId

_MANAGER = "ollama_proxy"
_PREFIX = "ollama_proxy_"

RESTING = frozenset({"stopped", "suspended"})
"""States of what runs nothing and can be started again."""

LEAVING = frozenset({"destroying", "destroyed", "replaced", "migrated"})
"""States of what does not have to be destroyed any more."""


class Machine(msgspec.Struct, frozen=True):
    """Describes one machine; nearly every key may be missing.

    ``instance_id`` is its version. On a host that can't be reached the state is the
    last one known, and the configuration may be in ``incomplete_config``. ``events``
    are as Fly tells them, whatever that is: see `evidence`.
    """

    id: str
    name: str = ""
    state: str = "unknown"
    region: str = ""
    instance_id: str = ""
    created_at: str = ""
    host_status: str = "ok"
    nonce: str | None = None
    config: dict[str, Any] = {}
    incomplete_config: dict[str, Any] = {}
    events: Any = None

    def mark(self, name: str) -> str | None:
        """Return one of our marks in its metadata."""
        found = (self.config or self.incomplete_config).get("metadata") or {}
        value = found.get(_PREFIX + name)
        return value if isinstance(value, str) else None

    @property
    def is_resting(self) -> bool:
        """Tell whether it runs nothing, by the word of a host that can be reached."""
        return self.state in RESTING and self.host_status != "unreachable"

    @property
    def lease_end(self) -> float:
        """Return until when it is marked as wanted, in epoch seconds."""
        text = self.mark("lease") or ""
        return float(text) if text.isdecimal() else 0.0

    @property
    def launch(self) -> LaunchId:
        """Return the launch that one of ours belongs to."""
        return LaunchId(self.mark("launch") or f"unmarked-{self.id}")

    @property
    def volume(self) -> str | None:
        """Return the volume that is mounted in it."""
        mounts = (self.config or self.incomplete_config).get("mounts") or []
        return mounts[0].get("volume") if mounts else None


class Volume(msgspec.Struct, frozen=True):
    """Describes one volume. It sits on one host of its region."""

    id: str
    name: str = ""
    state: str = ""
    region: str = ""
    size_gb: int = 0
    created_at: str = ""
    attached_machine_id: str | None = None

    @property
    def is_leaving(self) -> bool:
        """Tell whether it is being destroyed, which is not billed."""
        return self.state in {"pending_destroy", "scheduling_destroy", "destroying"}


_Kind = TypeVar("_Kind", Machine, Volume)


def mark_name(name: str) -> str:
    """Return the whole key of one of our marks."""
    return _PREFIX + name


class OwnershipTags:
    """Holds the marks of one owner."""

    def __init__(self, owner_id: str) -> None:
        self._owner_id = owner_id
        self.volume_name = f"ollama_{owner_id}"[:30]

    def of(
        self, launch_id: LaunchId, *, lease_end: float, spec: str, identity: str
    ) -> dict[str, str]:
        """Return the metadata of a machine of a launch.

        ``spec`` tells machines apart that were made by different settings;
        ``identity`` is the launch whose token its guard knows.
        """
        return {
            _MANAGER: "true",
            _PREFIX + "owner": self._owner_id,
            _PREFIX + "launch": str(launch_id),
            _PREFIX + "lease": f"{lease_end:.0f}",
            _PREFIX + "spec": spec,
            _PREFIX + "identity": identity,
        }

    def is_ours(self, machine: Machine) -> bool:
        """Tell whether we made it."""
        return is_made_by_us(machine) and machine.mark("owner") == self._owner_id


def is_made_by_us(machine: Machine) -> bool:
    """Tell whether any deployment of this product made it."""
    found = (machine.config or machine.incomplete_config).get("metadata") or {}
    return found.get(_MANAGER) == "true"


def read_machine(answer: object) -> Machine:
    """Return the machine of an answer; raises `TransientError` if it can't be read."""
    return _read(answer, Machine)


def read_volume(answer: object) -> Volume:
    """Return the volume of an answer, as `read_machine` does."""
    return _read(answer, Volume)


def read_machines(answer: object) -> list[Machine]:
    """Return the machines of a list; what is not ours may look as it likes."""
    return _read_all(answer, Machine, _MANAGER)


def read_volumes(answer: object) -> list[Volume]:
    """Return the volumes of a list."""
    return _read_all(answer, Volume, "ollama_")


def _read(answer: object, kind: type[_Kind]) -> _Kind:
    given = answer
    if isinstance(answer, dict):
        given = {key: value for key, value in answer.items() if value is not None}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        message = f"Fly's answer about a {kind.__name__.lower()} can't be read: {error}"
        raise TransientError(message) from error


def _read_all(answer: object, kind: type[_Kind], ours: str) -> list[_Kind]:
    if answer is None:  # Go writes a nil slice as null
        return []
    if not isinstance(answer, list):
        raise TransientError(f"Fly's list of {kind.__name__.lower()}s is no list")
    found = []
    for raw in answer:
        try:
            found.append(_read(raw, kind))
        except TransientError:
            if ours in str(raw):
                raise
    return found


def oldest_first(machines: Sequence[Machine]) -> list[Machine]:
    """Return machines in the order in which they were made."""
    return sorted(machines, key=lambda one: (one.created_at, one.id))
