"""Hold what a beat tells of models, compactly: most nodes tell the same each time."""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Annotated, Any, Final

import msgspec

from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.ollama.model_names import full_model_name

MOST_MODELS: Final = 1000
"""How many models a beat names at most."""

LONGEST_NAME: Final = 256
_ENTRY_BYTES: Final = 300
"""What Python adds to an entry and its key: objects, and a place in the mapping."""

_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class BeatModelsError(ValueError):
    """Reports models that can't be listed, with the reason as a sentence."""


class Entry(msgspec.Struct):
    """Checks what our own answers read of an entry of ``/api/tags``."""

    name: str
    model: str = ""
    digest: str = ""
    size: _Size = 0
    modified_at: str = ""


_RAWS: Final = msgspec.json.Decoder(list[msgspec.Raw] | None)
_NAMES: Final = msgspec.json.Decoder(list[str] | None)
_ENTRY: Final = msgspec.json.Decoder(Entry)


class BeatModels(Mapping[str, Mapping[str, Any]]):  # noqa: PLW1641 - mappings have none
    """Maps the full names of a node's models to entries as ``/api/tags`` lists them.

    Entries stay JSON until they are asked for, as 1 000 nodes have many. Two are equal
    if they have the same JSON. ``kept_bytes``: about the memory it takes.
    """

    __slots__ = ("_digest", "_entries", "kept_bytes")

    def __init__(self, told: bytes, entries: dict[str, bytes]) -> None:
        self._digest, self._entries = _digest_of(told), entries
        self.kept_bytes = sum(
            len(name) + len(entry) + _ENTRY_BYTES for name, entry in entries.items()
        )

    def is_told_by(self, told: bytes) -> bool:
        """Tell whether this JSON is what it was made of."""
        return self._digest == _digest_of(told)

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        entry: dict[str, Any] = msgspec.json.decode(self._entries[name])
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BeatModels):
            return self._entries == other._entries
        return super().__eq__(other)

    @property
    def names(self) -> list[str]:
        """Return the names as the node wrote them."""
        return [_ENTRY.decode(entry).name for entry in self._entries.values()]


def _digest_of(told: bytes) -> bytes:
    return blake2b(told, digest_size=16).digest()


NO_MODELS: Final = BeatModels(b"[]", {})


def models_of_names(told: bytes) -> BeatModels:
    """Return the models of a list of names, as former agents tell them."""
    try:
        names = _NAMES.decode(told) or []
    except UNREADABLE as error:
        raise BeatModelsError(f"'models' is no list of names ({error})") from None
    _check_number(len(names))
    entries = {
        full_name(name): msgspec.json.encode({"name": name, "model": name})
        for name in names
    }
    return BeatModels(told, entries)


def models_of_entries(told: bytes) -> BeatModels:
    """Return the models of a list of entries, as our agents tell them."""
    try:
        raws = _RAWS.decode(told) or []
    except UNREADABLE as error:
        raise BeatModelsError(f"'agent.models' is no list ({error})") from None
    _check_number(len(raws))
    return BeatModels(told, dict(_checked_entry(bytes(raw)) for raw in raws))


def _checked_entry(entry: bytes) -> tuple[str, bytes]:
    try:
        read = _ENTRY.decode(entry)
    except UNREADABLE as error:
        raise BeatModelsError(
            f"'agent.models' has an entry that /api/tags would not list ({error})"
        ) from None
    whole: dict[str, Any] = msgspec.json.decode(entry)
    if not read.model:
        whole["model"] = read.name
    return full_name(read.name), msgspec.json.encode(whole)  # the one way to write it


def full_name(name: str) -> str:
    """Return a model's full name; raises `BeatModelsError` for no name of one."""
    if not is_name(name):
        raise BeatModelsError(
            f"{name[:80]!r} is no name of a model; names have up to {LONGEST_NAME}"
            " characters on one line"
        )
    return full_model_name(name)


def is_name(name: str) -> bool:
    """Tell whether a list can show a model's name."""
    is_line = 0 < len(name) <= LONGEST_NAME and name.isprintable()
    return is_line and bool(name.strip())


def _check_number(number: int) -> None:
    if number > MOST_MODELS:
        raise BeatModelsError(
            f"{number} models are too many; a beat names up to {MOST_MODELS}"
        )
