"""Tell of nodes as the former hub did, and take orders about them.

``GET /nodes`` needs the right *read*. What changes something is below ``/-/``, like all
orders, and needs *admin*.
"""

from typing import Any, Protocol

from aiohttp import web

from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.nodes.hub_routes import NODES
from ollama_proxy.core.nodes.node_keys import NodeKey
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.server.admin.answers import json_answer, refuse_browsers
from ollama_proxy.server.caller import caller_of
from ollama_proxy.server.hub.refusals import refused

_ORDERS = "/-/nodes"
_NODE = "{node_id}"
_REMOVE = "nodes rm"
_LONGEST = 200


class Nodes(Protocol):
    """Knows the nodes: see `ollama_proxy.hub.registry.NodeRegistry`."""

    def listed(self) -> list[dict[str, Any]]:
        """Return every node, by name."""

    def shown(self, node_id: str) -> dict[str, Any] | None:
        """Return a node with its last errors; None if there is none."""

    def drain(self, node_id: str, *, is_drained: bool) -> bool:
        """Send a node no new requests, or do so again; False if there is none.

        Raises `StoreError` if the order can't be written; then nothing changes.
        """

    def remove(self, node_id: str) -> bool:
        """Forget a node, and cut its requests; False if there is none.

        Raises `StoreError`.
        """


class Keys(Protocol):
    """Knows the keys of nodes: see `ollama_proxy.hub.node_keyring.NodeKeyring`."""

    def of_node(self, node_id: str) -> NodeKey | None:
        """Return the key of a node; None if it has none."""

    def remove(self, key: NodeKey, line: AuditLine) -> None:
        """Take a key no more. Raises `StoreError`; then it still is."""


class Tunnels(Protocol):
    """Knows the tunnels of nodes: see `ollama_proxy.hub.tunnels.Tunnels`."""

    def count(self, node_id: str) -> tuple[int, int]:
        """Return how many tunnels of a node are open, and how many of them idle."""


class NodeHandlers:
    """Lists nodes, drains and removes them."""

    def __init__(
        self, nodes: Nodes, keys: Keys, tunnels: Tunnels, audit: Audit
    ) -> None:
        self._nodes, self._tunnels = nodes, tunnels
        self._keys = keys
        self._audit = audit

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(NODES, self.list_nodes),
            web.get(f"{NODES}/{_NODE}", self.show),
            web.get(_ORDERS, self.list_for_orders),
            web.post(f"{_ORDERS}/{_NODE}/drain", self.drain),
            web.post(f"{_ORDERS}/{_NODE}/undrain", self.undrain),
            web.delete(f"{_ORDERS}/{_NODE}", self.remove),
        ]

    async def list_nodes(self, _request: web.Request) -> web.Response:
        """List every node."""
        return json_answer(self._nodes.listed())

    async def show(self, request: web.Request) -> web.Response:
        """Return one node, why requests failed there, and its tunnels."""
        shown = self._nodes.shown(_id(request))
        if shown is None:
            return _unknown(request)
        opened, idle = self._tunnels.count(_id(request))
        return json_answer({**shown, "tunnels": {"open": opened, "idle": idle}})

    async def list_for_orders(self, request: web.Request) -> web.Response:
        """List every node for ``ollama-proxy nodes list``."""
        refuse_browsers(request)
        return json_answer({"nodes": self._nodes.listed()})

    async def drain(self, request: web.Request) -> web.Response:
        """Send a node no new requests; those that it has are finished."""
        return self._order_drain(request, is_drained=True)

    async def undrain(self, request: web.Request) -> web.Response:
        """Send a node requests again."""
        return self._order_drain(request, is_drained=False)

    def _order_drain(self, request: web.Request, *, is_drained: bool) -> web.Response:
        refuse_browsers(request)
        node_id = _id(request)
        if not self._nodes.drain(node_id, is_drained=is_drained):
            return _unknown(request)
        action = "nodes drain" if is_drained else "nodes undrain"
        self._audit.note(caller_of(request), action, node_id)
        return json_answer({"node_id": node_id, "drain_ordered": is_drained})

    async def remove(self, request: web.Request) -> web.Response:
        """Forget a node, cut its requests, and take its key no more.

        The next beat of a node without a key brings it back.
        """
        refuse_browsers(request)
        node_id, caller = _id(request), caller_of(request)
        key = self._keys.of_node(node_id)
        if key is not None:
            line = self._audit.line(caller, _REMOVE, node_id)
            self._keys.remove(key, line)
            self._audit.tell(line)
        if self._nodes.remove(node_id) and key is None:
            self._audit.note(caller, _REMOVE, node_id)
        elif key is None:
            return _unknown(request)
        return json_answer({"removed": node_id, "had_key": key is not None})


def _id(request: web.Request) -> str:
    return request.match_info["node_id"]


def _unknown(request: web.Request) -> web.Response:
    """Answer that there is no such node, to former clients and to ours."""
    name = _id(request)[:_LONGEST]
    return refused(404, f"no node is named {name!r}; GET /nodes lists those there are")
