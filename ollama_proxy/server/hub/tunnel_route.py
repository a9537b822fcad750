"""Take the tunnels of nodes: ``GET /nodes/tunnel``, a WebSocket for one request."""

from collections.abc import Callable

from aiohttp import web

from ollama_proxy.base.tcp_keep_alive import keep_alive
from ollama_proxy.hub.tunnels import TooManyTunnelsError, Tunnels
from ollama_proxy.upstream.tunnel_transport import MOST_FRAME, TunnelTransport

PATH = "/nodes/tunnel"

NodeOf = Callable[[str], str | None]
"""Returns the node whose key this is; None for any other text."""

_SCHEME = "bearer"
_CLOSE_S = 1.0


class TunnelRoute:
    """Answers ``GET /nodes/tunnel``: a node's key lets in tunnels of that node."""

    def __init__(self, tunnels: Tunnels, node_of: NodeOf) -> None:
        self._tunnels, self._node_of = tunnels, node_of

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Hold a tunnel until it has ended."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        node_id = self._node_of(key.strip()) if scheme.lower() == _SCHEME else None
        if node_id is None:
            return _refuse(
                401,
                "a tunnel needs the key of a node; make one with `ollama-proxy"
                " node-token`, and start the agent with the line that it prints",
            )
        try:
            with self._tunnels.place(node_id):
                return await self._carry(request, node_id)
        except TooManyTunnelsError as error:
            return _refuse(503, str(error))

    async def _carry(self, request: web.Request, node_id: str) -> web.StreamResponse:
        web_socket = web.WebSocketResponse(
            autoping=False,  # the transport answers, when it is its turn to write
            compress=False,
            max_msg_size=2 * MOST_FRAME,
            timeout=_CLOSE_S,
        )
        await web_socket.prepare(request)
        keep_alive(web_socket.get_extra_info("socket"))
        tunnel = TunnelTransport(web_socket)
        try:
            await self._tunnels.carry(node_id, tunnel)
        finally:
            # Not a close in good order: what the node may still send is not wanted,
            # and it may never read what waits to be sent.
            if request.transport is not None:
                request.transport.abort()
        return web_socket


def _refuse(status: int, message: str) -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}  # noqa: PLR2004
    return web.json_response(
        {"detail": message, "error": message}, status=status, headers=headers
    )
