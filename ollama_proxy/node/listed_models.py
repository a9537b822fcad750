"""Hold the models of an Ollama as it lists them, in the bounds of a beat."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ollama_proxy.core.nodes.beat_models import MOST_MODELS, Entry, is_name
from ollama_proxy.core.ollama.model_names import full_model_name

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


def listed(entries: Iterable[Mapping[str, Any]]) -> tuple[Model, ...]:
    """Return the models that have entries of ``/api/tags``.

    An entry for which the hub would refuse the beat is left out.
    """
    found = []
    for entry in itertools.islice(entries, MOST_MODELS):
        try:
            name = msgspec.convert(entry, Entry).name
        except msgspec.ValidationError:
            continue
        if is_name(name):
            found.append(Model(name, entry))
    return tuple(found)


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
