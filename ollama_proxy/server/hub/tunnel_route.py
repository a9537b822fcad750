"""Take the tunnels of nodes: ``GET /nodes/tunnel``, a WebSocket for one request."""

from collections.abc import Callable, Mapping

from aiohttp import web

from ollama_proxy.base.tcp_keep_alive import keep_alive
from ollama_proxy.core.nodes.beat import BeatError
from ollama_proxy.core.nodes.hub_routes import TUNNEL
from ollama_proxy.core.nodes.node_keys import NodeKey
from ollama_proxy.hub.tunnels import NoPlaceError, Tunnels
from ollama_proxy.server.aiohttp.upgrades import accept_upgrade
from ollama_proxy.server.hub.refusals import refused
from ollama_proxy.upstream.tunnel_transport import LOOK_S, MOST_FRAME, TunnelTransport

KeyOf = Callable[[Mapping[str, str]], NodeKey]
"""Returns the key of the node that sends these headers; raises `BeatError`."""

_CLOSE_S = 1.0


class TunnelRoute:
    """Answers ``GET /nodes/tunnel``: a node's key lets in tunnels of that node.

    ``look_s``: see `TunnelTransport`.
    """

    def __init__(
        self, tunnels: Tunnels, key_of: KeyOf, *, look_s: float = LOOK_S
    ) -> None:
        self._tunnels, self._key_of, self._look_s = tunnels, key_of, look_s

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get(TUNNEL, self.take, allow_head=False)]

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Hold a tunnel until it has ended."""
        try:
            node_id = self._key_of(request.headers).node_id
            with self._tunnels.place(node_id):
                return await self._carry(request, node_id)
        except BeatError as error:
            return refused(error.status, str(error))
        except NoPlaceError as error:
            return refused(503, str(error))

    async def _carry(self, request: web.Request, node_id: str) -> web.StreamResponse:
        web_socket = web.WebSocketResponse(
            autoping=False,  # the transport answers, when it is its turn to write
            compress=False,
            max_msg_size=2 * MOST_FRAME,
            timeout=_CLOSE_S,
        )
        await accept_upgrade(request, web_socket)
        keep_alive(web_socket.get_extra_info("socket"))
        tunnel = TunnelTransport(web_socket, look_s=self._look_s)
        try:
            await self._tunnels.carry(node_id, tunnel)
        finally:
            # Not a close in good order: what the node may still send is not wanted,
            # and it may never read what waits to be sent.
            if request.transport is not None:
                request.transport.abort()
        return web_socket
