"""Hold the models of an Ollama as it lists them, in the bounds of a beat."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from ollama_proxy.core.ollama.model_names import full_model_name

MOST_MODELS = 1000
"""How many models a beat names: the hub takes no more."""

_LONGEST_NAME = 256
_MOST_BYTES = 512 << 10
_BRIEF = ("name", "model", "digest", "size")


class LoadedModel(msgspec.Struct, frozen=True):
    """Holds a model as ``/api/ps`` lists it; sizes in bytes."""

    name: str
    size: int = 0
    size_vram: int = 0
    expires_at: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """Holds a model, and its entry of ``/api/tags``."""

    name: str
    entry: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """Return the name with its tag."""
        return full_model_name(self.name)


class _Checked(msgspec.Struct):
    """Checks the fields that the hub checks: it refuses a beat with a wrong one."""

    name: str
    model: str = ""
    digest: str = ""
    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    modified_at: str = ""


def listed(entries: Iterable[Mapping[str, Any]]) -> tuple[Model, ...]:
    """Return the models that have entries of ``/api/tags``.

    An entry that Ollama would not write is left out.
    """
    found = []
    for entry in itertools.islice(entries, MOST_MODELS):
        try:
            name = msgspec.convert(entry, _Checked).name
        except msgspec.ValidationError:
            continue
        if is_name(name):
            found.append(Model(name, entry))
    return tuple(found)


def is_name(name: object) -> bool:
    """Tell whether a list can show a model's name."""
    is_text = isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME
    return is_text and str(name).isprintable() and bool(str(name).strip())


def bounded(models: Sequence[Model]) -> list[Mapping[str, Any]]:
    """Return entries that have 512 KiB at most: half of what a beat may have.

    If they have more, each is reduced to name, digest and size; then the last ones are
    left out.
    """
    entries: list[Mapping[str, Any]] = [
        {"name": one.name, "model": one.name, **one.entry} for one in models
    ]
    if sum(map(_size, entries)) > _MOST_BYTES:
        entries = [{key: one[key] for key in _BRIEF if key in one} for one in entries]
    left, kept = _MOST_BYTES, []
    for entry in entries:
        left -= _size(entry)
        if left < 0:
            break
        kept.append(entry)
    return kept


def _size(entry: Mapping[str, Any]) -> int:
    return len(msgspec.json.encode(entry))
