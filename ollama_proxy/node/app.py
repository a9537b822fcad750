"""Build the agent's server: two routes, and a sentence for everything else."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from ollama_proxy import __version__
from ollama_proxy.node.execute import Executor
from ollama_proxy.node.hub_addresses import HubAddresses, is_loopback, shown_peer
from ollama_proxy.node.refusals import refuse
from ollama_proxy.node.workload import Workload

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class NodeApp:
    """Serves ``POST /execute`` to the hub, and ``GET /healthz`` to this machine too."""

    def __init__(
        self, node_id: str, hub: HubAddresses, executor: Executor, workload: Workload
    ) -> None:
        self._node_id, self._hub = node_id, hub
        self._executor, self._workload = executor, workload

    def admits(self, peer: str) -> bool:
        """Tell whether a peer may speak at all: the hub, or this machine."""
        return is_loopback(peer) or self._hub.admits(peer)

    def build(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_post("/execute", self._executor.execute)
        app.router.add_get("/healthz", self._health)
        return app

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: _Handler
    ) -> web.StreamResponse:
        """Refuse everything but the two routes, in a sentence."""
        peer = request.remote or ""
        is_health = request.path == "/healthz" and request.method in {"GET", "HEAD"}
        if not is_health and not self._hub.admits(peer):
            return refuse(
                403,
                f"this agent takes work only from its hub, and {shown_peer(peer)}"
                " has none of the addresses that its SERVER_URL resolves to",
            )
        if "Origin" in request.headers:
            return refuse(403, "this agent takes no requests of web pages")
        if request.path == "/execute" and request.method != "POST":
            return refuse(405, "/execute takes POST alone", {"Allow": "POST"})
        if request.path != "/execute" and not is_health:
            return refuse(
                403,
                "this agent serves POST /execute and GET /healthz alone, and nothing"
                " else of its Ollama",
            )
        return await handler(request)

    async def _health(self, _request: web.Request) -> web.Response:
        """Tell that the agent works; what it does not say is whether Ollama does."""
        return web.json_response(
            {
                "status": "draining" if self._workload.is_draining else "ok",
                "node_id": self._node_id,
                "version": __version__,
                "in_flight": self._workload.in_flight,
            }
        )
