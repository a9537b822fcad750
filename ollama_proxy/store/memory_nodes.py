"""Keep what lasts of nodes in memory: see `ollama_proxy.store.memory`."""

from collections.abc import Collection

from ollama_proxy.core.nodes.remembered import RememberedNode


class MemoryNodes:
    """Holds what lasts of the nodes of the hub."""

    def __init__(self) -> None:
        super().__init__()
        self._nodes: dict[str, RememberedNode] = {}

    def remembered_nodes(self) -> list[RememberedNode]:
        """Return every node, by name."""
        return [self._nodes[node_id] for node_id in sorted(self._nodes)]

    def put_nodes(
        self, nodes: Collection[RememberedNode], forgotten: Collection[str] = ()
    ) -> None:
        """Write nodes and forget others."""
        for node_id in forgotten:
            self._nodes.pop(node_id, None)
        self._nodes |= {node.node_id: node for node in nodes}
