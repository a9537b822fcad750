"""Nodes as the registry of a hub lists them, without a registry."""

from dataclasses import dataclass, field
from typing import Any

from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.nodes.node_keys import NodeKey


def listed_node(node_id: str = "box", **more: Any) -> dict[str, Any]:
    """Return a node as ``GET /nodes`` lists it, with other values where given."""
    return {
        "node_id": node_id,
        "ipv4": "192.0.2.7",
        "ipv6": None,
        "port": 8001,
        "models": ["llama3:latest"],
        "metadata": {"hostname": node_id},
        "load": {"cpu": 0.25, "memory": 0.5},
        "last_seen": "2026-11-29T21:00:00.000Z",
        "status": "online",
        "active_jobs": 0,
        "failure_count": 0,
        "draining": False,
        "drain_ordered": False,
        "age_s": 4.2,
        "url": "http://192.0.2.7:8001",
        "problem": "",
        **more,
    }


@dataclass
class ListedNodes:
    """Holds nodes, and keeps the orders about them."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    orders: list[tuple[str, str]] = field(default_factory=list)

    def listed(self) -> list[dict[str, Any]]:
        return self.nodes

    def shown(self, node_id: str) -> dict[str, Any] | None:
        found = next((one for one in self.nodes if one["node_id"] == node_id), None)
        return None if found is None else {**found, "errors": []}

    def drain(self, node_id: str, *, is_drained: bool) -> bool:
        return self._order("drain" if is_drained else "undrain", node_id)

    def remove(self, node_id: str) -> bool:
        return self._order("rm", node_id)

    def _order(self, order: str, node_id: str) -> bool:
        self.orders.append((order, node_id))
        return self.shown(node_id) is not None


@dataclass
class KeysOfNodes:
    """Holds keys of nodes, until they are removed."""

    keys: dict[str, NodeKey] = field(default_factory=dict)
    lines: list[AuditLine] = field(default_factory=list)

    def of_node(self, node_id: str) -> NodeKey | None:
        return self.keys.get(node_id)

    def remove(self, key: NodeKey, line: AuditLine) -> None:
        del self.keys[key.node_id]
        self.lines.append(line)
