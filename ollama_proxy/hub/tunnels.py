"""Keep the tunnels that nodes open to the hub, and attach requests to them.

A node behind NAT can't be called. It keeps some WebSockets open instead, each for one
request at a time.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ollama_proxy.upstream.connection import Connection
from ollama_proxy.upstream.endpoint import Link, Upstream
from ollama_proxy.upstream.tunnel_transport import TunnelTransport

_MOST = 4096
_MOST_PER_NODE = 66
_WAIT_S = 5.0
# No stranger can register this name, so the agent takes it as its own in `Host`.
_URL = "http://tunnel.internal"


class NoPlaceError(Exception):
    """Reports that no more tunnels are taken, of one node or of any."""


def tunnel_upstream(node_id: str, token: str) -> Upstream:
    """Return the upstream of a node that is reached through its tunnels.

    ``token``: by which the node's agent knows the hub.
    """
    return Upstream(_URL, Link(token=token, tunnel=node_id))


@dataclass(frozen=True, slots=True)
class _Waiter:
    """Holds a connection that waits for a tunnel; ``attached`` tells of one."""

    connection: Connection
    attached: "asyncio.Future[None]"


@dataclass(slots=True)
class _Node:
    """Holds the tunnels of one node: ``idle``, last come last; requests that wait.

    ``places``: tunnels that are open, or about to be.
    """

    open: set[TunnelTransport] = field(default_factory=set)
    idle: dict[TunnelTransport, None] = field(default_factory=dict)
    places: int = 0
    waiters: "deque[_Waiter]" = field(default_factory=deque)


class Tunnels:
    """Holds the open tunnels by node, at most 66 of one node and 4 096 in all.

    ``on_change``: called with a node's name when its first tunnel has opened, or its
    last one closed. ``wait_s``: how long a request waits for a tunnel.
    """

    def __init__(
        self,
        on_change: Callable[[str], None],
        *,
        most: int = _MOST,
        most_per_node: int = _MOST_PER_NODE,
        wait_s: float = _WAIT_S,
    ) -> None:
        self._on_change = on_change
        self._most, self._most_per_node, self.wait_s = most, most_per_node, wait_s
        self._nodes: dict[str, _Node] = {}
        self._places = 0
        self._is_ending = False

    def has(self, node_id: str) -> bool:
        """Tell whether a node has an open tunnel, idle or not."""
        node = self._nodes.get(node_id)
        return node is not None and bool(node.open)

    def count(self, node_id: str) -> tuple[int, int]:
        """Return how many tunnels of a node are open, and how many of them idle."""
        node = self._nodes.get(node_id)
        return (0, 0) if node is None else (len(node.open), len(node.idle))

    @contextlib.contextmanager
    def place(self, node_id: str) -> Iterator[None]:
        """Keep the place of a tunnel; raises `NoPlaceError` without one."""
        if self._is_ending:
            raise NoPlaceError("the hub is ending; try again in a moment")
        node = self._nodes.get(node_id)
        if node is not None and node.places >= self._most_per_node:
            raise NoPlaceError(
                f"the node {node_id!r} has {node.places} tunnels, its most; close some,"
                " or give each machine a NODE_ID of its own"
            )
        if self._places >= self._most:
            raise NoPlaceError(
                f"the hub has {self._places} tunnels, its most; let some nodes be"
                " reached without --tunnel"
            )
        node = self._nodes.setdefault(node_id, _Node())
        node.places += 1
        self._places += 1
        try:
            yield
        finally:
            node.places -= 1
            self._places -= 1
            self._forget(node_id, node)

    async def carry(self, node_id: str, tunnel: TunnelTransport) -> None:
        """Offer a tunnel, which has a place, to requests until it has ended."""
        node = self._nodes[node_id]
        try:
            node.open.add(tunnel)
            node.idle[tunnel] = None
            _serve_first(node)
            if len(node.open) == 1:
                self._on_change(node_id)
            await tunnel.run()
        finally:
            node.idle.pop(tunnel, None)
            node.open.discard(tunnel)
            if not node.open:
                self._on_change(node_id)

    def take_idle(self, node_id: str) -> TunnelTransport | None:
        """Return the newest idle tunnel of a node, which is idle no more; or None."""
        node = self._nodes.get(node_id)
        while node is not None and node.idle:
            tunnel, _ = node.idle.popitem()
            if tunnel.is_idle:
                return tunnel
        return None

    async def dial(self, node_id: str, connection: Connection) -> None:
        """Attach a connection to an idle tunnel of a node, the newest there is.

        Waits up to 5 s for one; raises `TimeoutError` if none comes.
        """
        if (tunnel := self.take_idle(node_id)) is not None:
            tunnel.attach(connection)
            return
        node = self._nodes.setdefault(node_id, _Node())
        attached = asyncio.get_running_loop().create_future()
        waiter = _Waiter(connection, attached)
        node.waiters.append(waiter)
        try:
            async with asyncio.timeout(self.wait_s):
                await attached
        except TimeoutError:
            connection.close()
            raise TimeoutError(
                f"the node {node_id!r} had no idle tunnel for {self.wait_s:g} s"
            ) from None
        except BaseException:  # a tunnel may have come just before
            connection.close()
            raise
        finally:
            with contextlib.suppress(ValueError):
                node.waiters.remove(waiter)
            self._forget(node_id, node)

    def drop(self, node_id: str) -> None:
        """Cut every tunnel of a node, with the requests on them: it may not come in."""
        node = self._nodes.get(node_id)
        for tunnel in tuple(node.open) if node is not None else ():
            tunnel.abort()

    def end(self) -> None:
        """Close what is idle and take no more; requests in progress go on."""
        self._is_ending = True
        for node in self._nodes.values():
            for tunnel in node.idle:
                tunnel.close()

    def _forget(self, node_id: str, node: _Node) -> None:
        if not node.places and not node.waiters and self._nodes.get(node_id) is node:
            del self._nodes[node_id]


def _serve_first(node: _Node) -> None:
    """Give the newest tunnel to the request that has waited longest, if any waits."""
    while node.waiters:
        waiter = node.waiters.popleft()
        if not waiter.attached.done():
            tunnel, _ = node.idle.popitem()
            tunnel.attach(waiter.connection)
            waiter.attached.set_result(None)
            return
