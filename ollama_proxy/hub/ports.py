"""Define what the registry of nodes needs of its surroundings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ollama_proxy.core.access.facts import HeaderView
from ollama_proxy.core.nodes.beat import Beat
from ollama_proxy.upstream.endpoint import Upstream


@dataclass(frozen=True, slots=True)
class Sender:
    """Describes the sender of a beat.

    ``peer``: the address of the connection, whatever the beat or its headers say.
    ``node_id``: the node whose key it showed; None without a key, as former agents
    send.
    """

    peer: str
    node_id: str | None = None

    @property
    def has_key(self) -> bool:
        """Tell whether it showed the key of a node."""
        return self.node_id is not None


class BeatAccess(Protocol):
    """Decides whose beats are taken."""

    def admit(self, peer: str, headers: HeaderView) -> Sender:
        """Return the sender of a beat, by its head alone.

        Raises `BeatError` with status 401 or 403 for one whose body is not even read.
        """


@dataclass(frozen=True, slots=True)
class NodeLink:
    """Holds how a node is reached.

    ``upstream``: None while it is not, with the reason in ``fault``, a sentence; "" if
    that is only being found out. ``serves_all``: it takes every request of Ollama, else
    ``POST /execute`` alone.
    """

    upstream: Upstream | None = None
    serves_all: bool = False
    fault: str = ""


UNKNOWN_LINK: Final = NodeLink()
"""How a node is reached before that is known."""


class NodeLinks(Protocol):
    """Finds how nodes are reached.

    After a later find, such as an address that has proved to be the node's, call
    `NodeRegistry.relink`.
    """

    def link_of(self, beat: Beat, sender: Sender) -> NodeLink:
        """Return how a node is reached that sent this beat, as far as it is known now.

        Called for each beat, so it must be quick, and must not wait.
        """

    def forget(self, node_id: str) -> None:
        """Forget a node that is not registered any more."""


class WantedModels(Protocol):
    """Says which models a node should pull."""

    def wanted_by(self, beat: Beat) -> Sequence[str]:
        """Return the models that a node should have and lacks."""
