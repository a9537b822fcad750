"""Plan what a fresh instance needs to have the models of the last one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from ollama_proxy.core.ollama.model_names import full_model_name


class Origin(StrEnum):
    """Names how a model was added or removed."""

    PULLED = "pulled"
    CREATED = "created"
    DELETED = "deleted"


class StickyModel(msgspec.Struct, frozen=True):
    """Holds one model, by its full name.

    - ``source``: the name to pull, as the client wrote it; for a copy, that of the
      original. ``written``: its own name, as the client wrote it.
    - ``insecure``: the registry may be one without TLS.
    - ``lost``: why the last fresh instance does not have it; None if it does.
    - ``launch``: of a created model, the launch on whose instance it was created.
    """

    name: str
    origin: Origin
    source: str = ""
    written: str = ""
    insecure: bool = False
    lost: str | None = None
    launch: str = ""

    @property
    def is_copy(self) -> bool:
        """Tell whether it is another model under a name of its own."""
        return (
            self.origin is Origin.PULLED and full_model_name(self.source) != self.name
        )


@dataclass(frozen=True, slots=True)
class Pulling:
    """Pull a model."""

    name: str
    insecure: bool


@dataclass(frozen=True, slots=True)
class Copying:
    """Copy a model that is there."""

    source: str
    name: str


@dataclass(frozen=True, slots=True)
class Removing:
    """Delete a model that was pulled only to be copied."""

    name: str


RestoreStep = Pulling | Copying | Removing


def steps_to(
    wanted: Mapping[str, StickyModel], configured: Collection[str], present: set[str]
) -> list[RestoreStep]:
    """Return the steps after which a fresh instance has the models of the last one.

    All names are full. ``present``: includes configured models, which were just pulled.
    """
    missing = [
        model
        for model in wanted.values()
        if model.origin is Origin.PULLED and model.name not in present
    ]
    steps: list[RestoreStep] = []
    there, borrowed = set(present), []
    for model in sorted(missing, key=lambda one: one.is_copy):
        source = full_model_name(model.source)
        if source not in there:
            steps.append(Pulling(model.source, model.insecure))
            there.add(source)
            if not _is_wanted(source, wanted, configured):
                borrowed.append(model.source)
        if model.is_copy:
            steps.append(Copying(model.source, model.written or model.name))
    return steps + [Removing(name) for name in borrowed]


def _is_wanted(
    name: str, wanted: Mapping[str, StickyModel], configured: Collection[str]
) -> bool:
    """Tell whether a model is wanted for itself, not only as a source of copies."""
    model = wanted.get(name)
    return name in configured if model is None else model.origin is not Origin.DELETED
