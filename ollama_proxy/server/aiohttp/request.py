"""Convert a request of aiohttp: to its context, and to the request that is sent on."""

from aiohttp import web

from ollama_proxy.core.http import headers
from ollama_proxy.core.ollama.routes import classify
from ollama_proxy.server.raw_target import raw_target
from ollama_proxy.serving.pool_services import PoolServices
from ollama_proxy.serving.request_context import RequestContext, draw_request_id
from ollama_proxy.upstream.request import Body, PreparedRequest


def outgoing(request: web.BaseRequest, body: Body) -> PreparedRequest:
    """Return a client's request as an instance gets it."""
    target, to_send = raw_target(request), headers.for_upstream(request.headers)
    return PreparedRequest(request.method, target, to_send, body)


REQUEST_CONTEXT = web.RequestKey("request_context", RequestContext)
"""Key under which the middleware keeps the context on the request."""


BEGUN = web.RequestKey("begun", bool)
"""Key on a request whose response has begun."""


def note_begun(request: web.BaseRequest) -> None:
    """Record that headers are about to be sent."""
    request[BEGUN] = True


def begin(request: web.BaseRequest, served: PoolServices) -> RequestContext:
    """Return the context of a new request; ``served``: the first pool."""
    method, target = request.method, raw_target(request)
    path = target.partition("?")[0]
    return RequestContext(
        method,
        path,
        request.headers.get("User-Agent", ""),
        classify(method, path),
        request_id=draw_request_id(),
        target=target,
        served=served,
    )
