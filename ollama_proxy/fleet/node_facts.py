"""Describe a node to the houses that it belongs to. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ollama_proxy.core.nodes.beat import LoadedModel
from ollama_proxy.core.nodes.node_state import NodeState
from ollama_proxy.upstream.endpoint import Upstream


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Holds what is known of one node, whenever something of it changes.

    - ``boot_id``: of the agent's process, "" of a former agent. Another one means that
      the process began anew, so what it worked on is lost.
    - ``takes_work``: it may get requests, by its state and its drain.
    - ``models``: by full name, each as ``/api/tags`` lists it; former agents tell
      ``name`` and ``model`` only.
    - ``loaded``: the full names of the models in its memory; None: not known.
    - ``slots``: how many requests its Ollama works on at a time; None: unknown.
    - ``foreign``: how many requests of others its Ollama has.
    - ``cpu``: the share of its processors in use, from 0 to 1.
    - ``upstream``: how it is reached; None: not yet, or not any more.
    - ``running``: what is in its memory in detail, as far as the beat has it.
    - ``serves_all``: it takes every request of Ollama; else ``POST /execute`` alone.
    """

    node_id: str
    boot_id: str
    state: NodeState
    takes_work: bool
    is_draining: bool
    models: Mapping[str, Mapping[str, Any]]
    loaded: frozenset[str] | None
    slots: int | None
    foreign: int
    cpu: float
    has_gpu: bool
    upstream: Upstream | None
    serves_all: bool
    running: tuple[LoadedModel, ...] = ()


class NodeReports(Protocol):
    """Takes in how requests to nodes ended, for the state of these."""

    def failed(self, node_id: str, reason: str) -> None:
        """Take in that a request failed on a node, as failures are counted."""

    def answered(self, node_id: str) -> None:
        """Take in that a node answered a request, whatever it answered."""
