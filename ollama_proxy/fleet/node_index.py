"""Find the nodes of a pool by their models, so that no request looks at all of them."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ollama_proxy.core.instance_choice import Candidate
from ollama_proxy.fleet.leasing import is_ready
from ollama_proxy.fleet.node_facts import NodeFacts
from ollama_proxy.fleet.node_instance import NodeInstance
from ollama_proxy.fleet.node_use import NodeLeases


@dataclass(frozen=True, slots=True)
class _Seen:
    """Holds how a node is found: by which models, whether at all, and for what."""

    models: Mapping[str, Any]
    names: frozenset[str]
    is_ready: bool
    is_plain: bool

    def is_of(self, facts: NodeFacts, *, is_ready: bool) -> bool:
        """Tell whether nothing of that has changed."""
        models = facts.models
        is_same = models is self.models or self.names == models.keys()
        is_same = is_same and _is_plain(facts) is self.is_plain
        return is_same and is_ready is self.is_ready


class NodeIndex:
    """Holds the candidates of the nodes that may get requests, all and by model.

    Models are known by full name, those of nodes that may get none too.
    """

    def __init__(self) -> None:
        self._known: Counter[str] = Counter()
        self._plain: Counter[str] = Counter()
        self._seen: dict[NodeInstance, _Seen] = {}
        self._by_model: dict[str, list[Candidate]] = {}
        self.ready: list[Candidate] = []

    def is_known(self, full_name: str, *, plain: bool = True) -> bool:
        """Tell whether a node has a model, in whatever state it is.

        If not ``plain``, those don't count that are known to generate text only.
        """
        number = self._known[full_name]
        return number > 0 if plain else number > self._plain[full_name]

    def is_ready(self, full_name: str) -> bool:
        """Tell whether a node has a model that may get requests."""
        return full_name in self._by_model

    def holders(self, full_name: str) -> Sequence[Candidate]:
        """Return the nodes with a model that may get requests, as a view."""
        return self._by_model.get(full_name, ())

    def has_any(self, node: NodeInstance, full_names: Collection[str]) -> bool:
        """Tell whether a node has one of some models."""
        return not self._seen[node].names.isdisjoint(full_names)

    def note(self, node: NodeInstance, leases: NodeLeases) -> bool:
        """Take in what a node has now; False if that is no news, as of most beats."""
        seen, now_ready = self._seen.get(node), is_ready(leases)
        if seen is not None and seen.is_of(node.facts, is_ready=now_ready):
            return False
        self.forget(node, leases.candidate)
        models, is_plain = node.facts.models, _is_plain(node.facts)
        seen = _Seen(models, frozenset(models), now_ready, is_plain)
        self._seen[node] = seen
        self._known.update(seen.names)
        if is_plain:
            self._plain.update(seen.names)
        if now_ready:
            self.ready.append(leases.candidate)
            for name in seen.names:
                self._by_model.setdefault(name, []).append(leases.candidate)
        return True

    def forget(self, node: NodeInstance, candidate: Candidate) -> None:
        """Forget a node."""
        seen = self._seen.pop(node, None)
        if seen is None:
            return
        _subtract(self._known, seen.names)
        if seen.is_plain:
            _subtract(self._plain, seen.names)
        if not seen.is_ready:
            return
        _discard(self.ready, candidate)
        for name in seen.names:
            holders = self._by_model[name]
            _discard(holders, candidate)
            if not holders:
                del self._by_model[name]


def _is_plain(facts: NodeFacts) -> bool:
    """Tell whether a node is known to generate text only; False before it is known."""
    return facts.upstream is not None and not facts.serves_all


def _subtract(counted: Counter[str], names: Collection[str]) -> None:
    for name in names:
        counted[name] -= 1
        if not counted[name]:
            del counted[name]


def _discard(candidates: list[Candidate], gone: Candidate) -> None:
    """Take one out by identity: candidates with equal figures are equal."""
    for place, one in enumerate(candidates):
        if one is gone:
            del candidates[place]
            return
