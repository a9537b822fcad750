"""Find the machines and volumes of a deployment among all others by their metadata."""

from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

import msgspec

from ollama_proxy.backends.base.cloud import Resource
from ollama_proxy.backends.base.ownership_tags import TagFormat
from ollama_proxy.base.errors import TransientError

_MANAGER = "ollama_proxy"
TAGS = TagFormat((_MANAGER, "true"), prefix="ollama_proxy_")

STOPPED = frozenset({"stopped", "suspended"})
"""States in which a machine runs nothing and can be started again."""

LEAVING = frozenset({"destroying", "destroyed", "replaced", "migrated"})
"""States in which a machine needs no destruction any more."""


class Machine(Resource, msgspec.Struct, frozen=True):
    """Describes one machine; nearly every key may be missing.

    ``instance_id``: its version. If its host can't be reached, the state is the last
    known one, and the configuration may be in ``incomplete_config``. ``events``: as Fly
    sends them, unchecked; see `evidence`.
    """

    tag_format: ClassVar = TAGS

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

    @property
    def raw_tags(self) -> dict[str, Any]:
        """Return its metadata, ours or not."""
        return (self.config or self.incomplete_config).get("metadata") or {}

    @property
    def state_in_words(self) -> str:
        """Return its state, for a person."""
        return self.state

    @property
    def is_leaving(self) -> bool:
        """Tell whether it is destroyed, or about to be."""
        return self.state in LEAVING

    @property
    def is_stopping(self) -> bool:
        """Tell whether a stop or a suspension was asked for."""
        return self.state in {"stopping", "suspending"}

    @property
    def is_stopped(self) -> bool:
        """Tell whether it runs nothing, by the word of a host that can be reached."""
        return self.state in STOPPED and self.host_status != "unreachable"

    @property
    def volume(self) -> str | None:
        """Return the volume that is mounted in it."""
        mounts = (self.config or self.incomplete_config).get("mounts") or []
        return mounts[0].get("volume") if mounts else None


def volumes_of(machines: Iterable[Machine]) -> set[str]:
    """Return the volumes that are mounted in machines."""
    return {one.volume for one in machines if one.volume is not None}


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


def volume_name(owner_id: str) -> str:
    """Return the name of an owner's volumes: they have no metadata."""
    return f"ollama_{owner_id}"[:30]


def read_machine(answer: object) -> Machine:
    """Return the machine of an answer; raises `TransientError` if it can't be read."""
    return _read(answer, Machine)


def read_volume(answer: object) -> Volume:
    """Return the volume of an answer, as `read_machine` does."""
    return _read(answer, Volume)


def read_machines(answer: object) -> list[Machine]:
    """Return the machines of a list; skip invalid ones of others."""
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
