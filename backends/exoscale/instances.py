"""Find the instances of a deployment among all others by their labels."""

from typing import Any, ClassVar

import msgspec

from ollama_proxy.backends.base.cloud import Resource
from ollama_proxy.backends.base.ownership_tags import TagFormat
from ollama_proxy.base.errors import TransientError

_MANAGER = "ollama-proxy"
TAGS = TagFormat(("managed-by", _MANAGER), owner_letter="o", lease_letter="t")
"""Values begin with a letter and hold no ``:``."""
STANDBY = "parked"
"""The label ``launch`` of an instance that is stopped, to stand by for the next one.

The value is older than the name: instances stopped by former versions carry it.
"""

LEAVING = frozenset({"destroying", "destroyed", "expunging"})
"""States in which an instance needs no deletion any more."""


class Instance(Resource, msgspec.Struct, frozen=True, rename="kebab"):
    """Describes one instance as the API shows it; nearly every key may be missing."""

    tag_format: ClassVar = TAGS

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
    def is_standby(self) -> bool:
        """Tell whether it stands by for the next launch."""
        return self.labels.get("launch") == STANDBY

    @property
    def raw_tags(self) -> dict[str, str]:
        """Return its labels, ours or not."""
        return self.labels

    @property
    def is_made_by_us(self) -> bool:
        """Tell whether any deployment made it; what a pool manages is never touched."""
        return super().is_made_by_us and not self.manager

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
        """Tell whether a stop was asked for."""
        return self.state == "stopping"

    @property
    def is_stopped(self) -> bool:
        """Tell whether it is stopped, and stands by for the next launch."""
        return self.is_standby and self.state == "stopped"


def read_instances(answer: dict[str, Any]) -> list[Instance]:
    """Return the readable instances of ``list-instances``.

    Unreadable ones of others are skipped; raises `TransientError` for one of ours.
    """
    found = []
    for raw in answer.get("instances") or []:
        try:
            found.append(read_instance(raw))
        except TransientError:
            if (raw.get("labels") or {}).get(TAGS.manager[0]) == _MANAGER:
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
