"""A request as aiohttp hands it over: what is noted of it, and what goes on."""

from aiohttp import web

from ollama_proxy.core.http import headers
from ollama_proxy.core.ollama.routes import classify
from ollama_proxy.serving.request_context import Exchange
from ollama_proxy.upstream.request import Body, Outgoing


def raw_target(request: web.BaseRequest) -> str:
    """Return path and query as the client wrote them, without scheme and host."""
    target = request.raw_path
    return target if target.startswith("/") else request.rel_url.raw_path_qs


def raw_path(request: web.BaseRequest) -> str:
    """Return the path as the client wrote it, without the query."""
    return raw_target(request).partition("?")[0]


def outgoing(request: web.BaseRequest, body: Body) -> Outgoing:
    """Return a client's request as an instance gets it."""
    target, to_send = raw_target(request), headers.for_upstream(request.headers)
    return Outgoing(request.method, target, to_send, body)


EXCHANGE = web.RequestKey("exchange", Exchange)
"""Key under which the middleware keeps the exchange on the request."""


def begin(request: web.BaseRequest, request_id: str) -> Exchange:
    """Return the exchange of a request that just came."""
    path = raw_path(request)
    agent = request.headers.get("User-Agent", "")
    return Exchange(request_id, classify(request.method, path), path, agent)
