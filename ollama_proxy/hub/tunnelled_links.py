"""Reach nodes through their tunnels, and others as they are reached without."""

from collections.abc import Callable

from ollama_proxy.core.nodes.beat import Beat
from ollama_proxy.hub.ports import NodeLink, NodeLinks, Sender
from ollama_proxy.hub.tunnels import Tunnels, tunnel_upstream


class TunnelledLinks:
    """Finds how nodes are reached, as `ports.NodeLinks` says: a tunnel comes first.

    ``others``: finds the way to a node without a tunnel. ``token_of``: the token by
    which a node knows the hub; None if it has not joined.
    """

    def __init__(
        self,
        tunnels: Tunnels,
        others: NodeLinks,
        token_of: Callable[[str], str | None],
    ) -> None:
        self._tunnels, self._others, self._token_of = tunnels, others, token_of

    def link_of(self, beat: Beat, sender: Sender) -> NodeLink:
        """Return how a node is reached that sent this beat."""
        if sender.node_id is not None and self._tunnels.has(sender.node_id):
            token = self._token_of(sender.node_id)
            if token is not None:
                upstream = tunnel_upstream(sender.node_id, token)
                return NodeLink(upstream, serves_all=True)
        return self._others.link_of(beat, sender)

    def forget(self, node_id: str) -> None:
        """Forget a node that is not registered any more."""
        self._others.forget(node_id)
