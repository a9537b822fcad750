"""Know the models of a pool that has nodes, as their beats list them."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from ollama_proxy.core.ollama.catalog import Catalog
from ollama_proxy.core.ollama.listed_models import (
    NO_DETAILS,
    ListedModel,
    Tags,
    described,
    openai_model_of,
    with_more,
)
from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.ollama.model_names import full_model_name, shown_model_name
from ollama_proxy.fleet.house import House
from ollama_proxy.fleet.node_facts import NodeFacts

_LONG_AGO: Final = "0001-01-01T00:00:00Z"
"""The date of what a former agent lists, without any: the zero time of Go."""


class NodeModels(Protocol):
    """Lists the models of nodes: each once."""

    def entries(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the entries of ``/api/tags``, by full name."""

    def find(self, full_name: str) -> Mapping[str, Any] | None:
        """Return the entry of one model; None if no node has it."""

    def has(self, full_name: str) -> bool:
        """Tell whether a node has a model."""


class HouseModelList:
    """Lists the models of the nodes of a pool, whatever the state of these.

    A request for a model of a node that is away waits, or is answered that it is away.
    Of nodes that differ, one that takes requests counts.
    """

    def __init__(self, houses: Iterable[House]) -> None:
        self._houses = tuple(houses)

    def entries(self) -> dict[str, dict[str, Any]]:
        """Return the entries of ``/api/tags``, by full name."""
        found: dict[str, dict[str, Any]] = {}
        for facts in self._nodes():
            for name in facts.models:
                if name not in found:
                    found[name] = _entry(facts.models[name])
        return found

    def find(self, full_name: str) -> dict[str, Any] | None:
        """Return the entry of one model; None if no node has it."""
        for facts in self._nodes():
            if full_name in facts.models:
                return _entry(facts.models[full_name])
        return None

    def has(self, full_name: str) -> bool:
        """Tell whether a node has a model."""
        return any(
            full_name in node.facts.models
            for house in self._houses
            for node in house.nodes
        )

    def running(self) -> Iterator[dict[str, Any]]:
        """Yield the entries of ``/api/ps`` of the nodes that take requests."""
        for facts in self._nodes():
            if not facts.takes_work:
                continue
            for one in facts.running:
                known = facts.models.get(full_model_name(one.name), {"name": one.name})
                entry = _entry(known)
                del entry["modified_at"]
                yield {
                    **entry,
                    "size": one.size,
                    "expires_at": one.expires_at or _LONG_AGO,
                    "size_vram": one.size_vram,
                }

    def _nodes(self) -> list[NodeFacts]:
        """Return the facts of all nodes, those that take requests first.

        Former agents, which tell little of a model, come after ours.
        """
        every = [node.facts for house in self._houses for node in house.nodes]
        every.sort(key=lambda one: (not one.takes_work, not one.boot_id))
        return every


def _entry(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of ``/api/tags`` with all that clients read.

    The CLI shortens the digest to twelve characters and fails on a shorter one.
    """
    name = shown_model_name(str(known["name"]))
    told = {key: value for key, value in known.items() if value not in (None, "")}
    return {
        "modified_at": _LONG_AGO,
        "size": 0,
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "details": NO_DETAILS,
        **told,
        "name": name,
        "model": name,
    }


class HouseCatalog(Catalog):
    """Answers questions about models as `Catalog` does, then by the beats of nodes."""

    def __init__(
        self, nodes: NodeModels, configured: Sequence[str], **rest: Any
    ) -> None:
        self.nodes = nodes
        super().__init__(configured, **rest)

    def knows(self, full_name: str) -> bool:
        """Tell whether a model is listed, by its full name."""
        return super().knows(full_name) or self.nodes.has(full_name)

    def tags(self) -> bytes:
        """Return the body of ``/api/tags``."""
        added = [
            entry
            for name, entry in self.nodes.entries().items()
            if not super(HouseCatalog, self).knows(name)
        ]
        return with_more(super().tags(), added)

    def show(self, model: str) -> bytes | None:
        """Return the body of ``/api/show``, or None for a model not listed.

        Of a node only what its list says is known here.
        """
        if (known := super().show(model)) is not None:
            return known
        entry = self.nodes.find(full_model_name(model))
        if entry is None:
            return None
        return described(
            entry["modified_at"],
            details=entry["details"],
            capabilities=entry.get("capabilities") or (),
        )

    def openai_models(self) -> bytes:
        """Return the body of ``/v1/models``."""
        tags = msgspec.json.decode(self.tags(), type=Tags).models
        data = [openai_model_of(model) for model in tags] or None
        return msgspec.json.encode({"object": "list", "data": data})

    def openai_model(self, model: str) -> bytes | None:
        """Return the body of ``/v1/models/:model``, or None if not listed."""
        if (known := super().openai_model(model)) is not None:
            return known
        entry = self.nodes.find(full_model_name(model))
        if entry is None:
            return None
        try:
            listed = msgspec.convert(entry, type=ListedModel)
        except UNREADABLE:
            return None
        return msgspec.json.encode(openai_model_of(listed, model))
