"""Build the agent's server: what the hub may ask, and a sentence for all else."""

import warnings

from aiohttp import web
from aiohttp.typedefs import Handler

from ollama_proxy import __version__
from ollama_proxy.core.access.hosts import PublicHosts
from ollama_proxy.node.door import Guests
from ollama_proxy.node.execute import Executor
from ollama_proxy.node.hub_access import HubAccess
from ollama_proxy.node.hub_addresses import HubAddresses, is_loopback, shown_peer
from ollama_proxy.node.refusals import refuse
from ollama_proxy.node.relay import OllamaRelay, strip_own_headers
from ollama_proxy.node.relayed_body import invite
from ollama_proxy.node.workload import Workload

_HEALTH = "/healthz"
_EXECUTE = "/execute"


class NodeApp:
    """Serves the hub: all of Ollama to one with a token, else ``POST /execute`` alone.

    ``access``: what a joining has brought; None: this node has not joined, and knows
    the hub by its addresses. ``GET /healthz`` answers this machine too.
    """

    def __init__(
        self,
        node_id: str,
        hub: HubAddresses,
        executor: Executor,
        relay: OllamaRelay,
        workload: Workload,
        *,
        host_name: str,
        access: HubAccess | None = None,
    ) -> None:
        self._node_id, self._hub, self._access = node_id, hub, access
        self._executor, self._relay, self._workload = executor, relay, workload
        self._hosts = PublicHosts((host_name.lower(),))
        self.guests = Guests() if access is not None else None

    def admits(self, peer: str) -> bool:
        """Tell whether a peer may speak without a token: the hub, or this machine."""
        return is_loopback(peer) or self._hub.admits(peer)

    def build(self) -> web.Application:
        """Return the application."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of custom routers
            app = web.Application(router=_AnyPath(self._handle), debug=False)
        app.on_response_prepare.append(_before_head)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, or refuse it in a sentence."""
        path = request.raw_path.partition("?")[0]
        is_health = path == _HEALTH and request.method in {"GET", "HEAD"}
        refusal = self._page_refusal(request)
        if refusal is None and not (is_health and self._may_ask_health(request)):
            refusal = (
                self._refusal_to_stranger(request, path)
                if self._access is None
                else self._refusal_without_token(request, self._access)
            )
        if refusal is not None:
            if not request.content.is_eof():
                refusal.force_close()
            return refusal
        if is_health:
            return self._health(request)
        if self.guests is not None:
            self.guests.admit(request.transport)
        if path != _EXECUTE:
            return await self._relay.relay(request)
        if request.method != "POST":
            return refuse(405, "/execute takes POST alone", {"Allow": "POST"})
        await invite(request)
        return await self._executor.execute(request)

    def _may_ask_health(self, request: web.Request) -> bool:
        """Tell whether it needs no token: the nonce of a hub is asked before that."""
        return self.admits(request.remote or "") or "nonce" in request.query

    def _page_refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a web page, whatever name it uses; None to others."""
        if "Origin" in request.headers:
            return refuse(403, "this agent takes no requests of web pages")
        host = request.headers.get("Host", "")
        if self._hosts.takes(host):
            return None
        return refuse(
            403,
            f"this agent is not known as {host[:100]!r}; use its address, or the name"
            " of its host",
        )

    def _refusal_to_stranger(
        self, request: web.Request, path: str
    ) -> web.Response | None:
        """Return the answer of a node that has not joined; None to a job of the hub."""
        peer = request.remote or ""
        if not self._hub.admits(peer):
            return refuse(
                403,
                f"this agent takes work only from its hub, and {shown_peer(peer)}"
                " has none of the addresses that its SERVER_URL resolves to",
            )
        if path == _EXECUTE:
            return None
        return refuse(
            403,
            "this agent has not joined the hub, so it serves POST /execute and GET"
            " /healthz alone, and nothing else of its Ollama",
        )

    def _refusal_without_token(
        self, request: web.Request, access: HubAccess
    ) -> web.Response | None:
        """Return the answer to a request without the hub's token; None with it."""
        given = request.headers.getall("Authorization", ())
        if len(given) == 1 and access.is_hub(given[0]):
            return None
        return refuse(
            401,
            "this agent takes work only from its hub, by the token that the hub gave"
            " it; ask the hub instead",
            {"WWW-Authenticate": 'Bearer realm="ollama-proxy node"'},
        )

    def _health(self, request: web.Request) -> web.Response:
        """Tell that the agent works; what it does not say is whether Ollama does.

        A ``nonce`` is answered with the proof that this node has joined.
        """
        proof = None
        if self._access is not None and (nonce := request.query.get("nonce")):
            proof = self._access.proof(nonce)
        return web.json_response(
            {
                "status": "draining" if self._workload.is_draining else "ok",
                "node_id": self._node_id,
                "version": __version__,
                "in_flight": self._workload.in_flight,
            }
            | ({} if proof is None else {"proof": proof})
        )


class _AnyPath(web.UrlDispatcher):
    """Has one handler for all paths: which of them is whose is decided once, there."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        resource = self.add_resource("/")
        self._route = resource.add_route("*", handler, expect_handler=_invite_later)

    async def resolve(self, request: web.Request) -> web.UrlMappingMatchInfo:
        """Return the route, whatever the request is."""
        del request
        return web.UrlMappingMatchInfo({}, self._route)


async def _invite_later(_request: web.Request) -> None:
    """Answer ``Expect`` not yet: whether the body is wanted is decided later."""


async def _before_head(_request: web.BaseRequest, head: web.StreamResponse) -> None:
    strip_own_headers(head)
