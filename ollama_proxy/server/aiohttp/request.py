"""Convert a request of aiohttp: to its context, and to the request that is sent on."""

from aiohttp import web
from multidict import CIMultiDict

from ollama_proxy.core.http import headers
from ollama_proxy.core.ollama.routes import classify
from ollama_proxy.gateway.credentials import SENT_IN, without_credentials
from ollama_proxy.server.raw_target import raw_target
from ollama_proxy.serving.pool_map import PoolMap
from ollama_proxy.serving.request_context import RequestContext, draw_request_id
from ollama_proxy.upstream.request import Body, PreparedRequest


def outgoing(
    request: web.BaseRequest, body: Body, *, hides_credentials: bool
) -> PreparedRequest:
    """Return a client's request as an instance gets it."""
    target, to_send = raw_target(request), headers.for_upstream(request.headers)
    if any(name in to_send for name in SENT_IN):
        fields = without_credentials(to_send.items(), hides=hides_credentials)
        to_send = CIMultiDict(fields)
    return PreparedRequest(request.method, target, to_send, body)


REQUEST_CONTEXT = web.RequestKey("request_context", RequestContext)
"""Key under which the middleware keeps the context on the request."""


BEGUN = web.RequestKey("begun", bool)
"""Key on a request whose response has begun."""


def note_begun(request: web.BaseRequest) -> None:
    """Record that headers are about to be sent."""
    request[BEGUN] = True


def begin(request: web.BaseRequest, pools: PoolMap, target: str) -> RequestContext:
    """Return the context of a new request, which the first pool serves by default.

    ``target``: path and query by which it is judged.
    """
    method = request.method
    path = target.partition("?")[0]
    route = pools.resolve(classify(method, path), method, path)
    return RequestContext(
        method,
        path,
        request.headers.get("User-Agent", ""),
        route,
        request_id=draw_request_id(),
        target=target,
        served=pools.first,
    )
