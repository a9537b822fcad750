"""What is known of the models, so that it can be told while nothing runs.

Filled from every instance that comes up, kept in the store, and served in
Ollama's shapes. Bodies that came from an instance are given out byte for byte.
Models that the next instance will have are in it whatever the last one said.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from ollama_proxy.routing import full_model_name

NO_DETAILS: dict[str, Any] = {
    "parent_model": "",
    "format": "gguf",
    "family": "",
    "families": None,
    "parameter_size": "",
    "quantization_level": "",
}


class ListedModel(msgspec.Struct):
    """The part of an entry of ``/api/tags`` that other answers are made of."""

    name: str
    modified_at: str = ""
    digest: str = ""
    size: int = 0


class Tags(msgspec.Struct):
    """The body of ``/api/tags``."""

    models: list[ListedModel] = []


@dataclass(frozen=True, slots=True)
class Contents:
    """What one instance said: raw bodies; ``shows`` by resolved model name."""

    tags: bytes
    version: str
    shows: Mapping[str, bytes] = field(default_factory=dict)


class Restored(Protocol):
    """What clients put on the instances."""

    def expected(self, configured: Sequence[str]) -> Sequence[str]:
        """Return the models that the next instance will have, by name."""


class Catalogue:
    """Answers about models while no instance is up.

    ``restored``: what changes which models the next instance will have.
    """

    def __init__(
        self,
        configured: Sequence[str],
        *,
        version: str,
        since: float,
        contents: Contents | None = None,
        restored: Restored | None = None,
    ) -> None:
        self._configured = tuple(configured)
        self._restored = restored
        self._default_version = version
        self._since = since
        self._contents = contents
        self._view = _View((), b"", {})
        self._look()

    @property
    def contents(self) -> Contents | None:
        """What the last instance said; None before the first."""
        return self._contents

    def replace(self, contents: Contents) -> None:
        """Take over what an instance said; raises `ValueError` if it is no list."""
        self._view = self._make_view(self._expected(), contents)
        self._contents = contents

    def _expected(self) -> tuple[str, ...]:
        if self._restored is None:
            return self._configured
        return tuple(self._restored.expected(self._configured))

    def _look(self) -> "_View":
        """Return what there is, made anew if other models are expected by now."""
        expected = self._expected()
        if self._view.expected != expected or not self._view.tags:
            self._view = self._make_view(expected, self._contents)
        return self._view

    def _make_view(
        self, expected: tuple[str, ...], contents: Contents | None
    ) -> "_View":
        tags = contents.tags if contents is not None else _NO_TAGS
        models = _by_name(tags)
        list_id = hashlib.sha256(
            "\n".join(sorted(models)).encode("utf-8", "replace")
        ).hexdigest()
        lacking = [name for name in expected if full_model_name(name) not in models]
        if lacking:
            tags = _with_more(tags, [self._placeholder(name) for name in lacking])
        return _View(expected, tags, _by_name(tags), list_id)

    @property
    def list_id(self) -> str | None:
        """What the last instance's list is known by; None before the first."""
        return self._look().list_id if self._contents is not None else None

    def knows(self, full_name: str) -> bool:
        """Tell whether a model is listed, by its full name."""
        return full_name in self._look().models

    def version(self) -> bytes:
        """Return the body of ``/api/version``: the last one seen."""
        seen = self._contents.version if self._contents else ""
        return msgspec.json.encode({"version": seen or self._default_version})

    def tags(self) -> bytes:
        """Return the body of ``/api/tags``."""
        return self._look().tags

    def show(self, model: str) -> bytes | None:
        """Return the body of ``/api/show``, or None for a model not listed."""
        name = full_model_name(model)
        if self._contents is not None and name in self._contents.shows:
            return self._contents.shows[name]
        listed = self._look().models.get(name)
        if listed is None:
            return None
        body = {
            "license": "",
            "modelfile": "",
            "parameters": "",
            "template": "",
            "details": NO_DETAILS,
            "model_info": {},
            "capabilities": ["completion"],
            "modified_at": listed.modified_at,
        }
        return msgspec.json.encode(body)

    def openai_models(self) -> bytes:
        """Return the body of ``/v1/models``."""
        data = [_openai_model(model) for model in self._look().models.values()] or None
        return msgspec.json.encode({"object": "list", "data": data})

    def openai_model(self, model: str) -> bytes | None:
        """Return the body of ``/v1/models/:model``, or None if not listed."""
        listed = self._look().models.get(full_model_name(model))
        if listed is None:
            return None
        return msgspec.json.encode(_openai_model(listed, model))

    def _placeholder(self, name: str) -> dict[str, Any]:
        """Return an entry for a model that no instance has had yet.

        The CLI cuts the digest to twelve characters and fails on a shorter one.
        """
        full = full_model_name(name)
        return {
            "name": full,
            "model": full,
            "modified_at": rfc3339(self._since),
            "size": 0,
            "digest": hashlib.sha256(full.encode()).hexdigest(),
            "details": NO_DETAILS,
        }


@dataclass(frozen=True, slots=True)
class _View:
    """What is told of the models, as long as the same are ``expected``.

    ``list_id`` tells one list of names that an instance gave from another.
    """

    expected: tuple[str, ...]
    tags: bytes
    models: Mapping[str, ListedModel]
    list_id: str = ""


_NO_TAGS = b'{"models":[]}'


def _by_name(tags: bytes) -> dict[str, ListedModel]:
    """Return the models of a body of ``/api/tags`` by their full names."""
    listed = msgspec.json.decode(tags, type=Tags).models or []
    return {full_model_name(model.name): model for model in listed}


def _with_more(tags: bytes, added: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a body of ``/api/tags`` with more entries; the others as they came."""
    raw = msgspec.json.decode(tags, type=_RawTags).models
    entries = [*raw, *(msgspec.Raw(msgspec.json.encode(one)) for one in added)]
    return msgspec.json.encode({"models": entries})


class _RawTags(msgspec.Struct):
    models: list[msgspec.Raw] = []


def sizes_of(contents: Contents | None) -> dict[str, int]:
    """Return how many bytes each model had on the last instance, by full name."""
    if contents is None:
        return {}
    return {name: model.size for name, model in _by_name(contents.tags).items()}


def rfc3339(moment: float) -> str:
    """Return epoch seconds as Go writes them: ``2026-11-21T09:46:57.475456Z``."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def _openai_model(model: ListedModel, name: str | None = None) -> dict[str, Any]:
    """Return one model in OpenAI's shape, the owner being its namespace."""
    head = model.name.rpartition("/")[0]
    return {
        "id": name or model.name,
        "object": "model",
        "created": _unix_seconds(model.modified_at),
        "owned_by": head.rpartition("/")[2] or "library",
    }


def _unix_seconds(timestamp: str) -> int:
    try:
        return int(datetime.fromisoformat(timestamp).timestamp())
    except ValueError:
        return 0
