"""Around every request: its id, log line and metric, access, and our own errors."""

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ollama_proxy.core.ollama.routes import Kind
from ollama_proxy.server.access import AccessControl, AccessFacts
from ollama_proxy.server.aiohttp.reply import to_response
from ollama_proxy.server.aiohttp.request import REQUEST_CONTEXT, begin
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.serving.request_log import failure, note

_FIRST_ERROR = 400
_UNCOUNTED = frozenset({"/status", "/healthz", "/metrics"})


def observe(metrics: Metrics) -> Middleware:
    """Return the middleware that logs and counts each request once."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        context = begin(request)
        request[REQUEST_CONTEXT] = context
        loop = asyncio.get_running_loop()
        begun_at = loop.time()
        status = 0
        try:
            response = await handler(request)
            status = response.status
            if context.route.kind is Kind.ADMIN and status < _FIRST_ERROR:
                context.outcome = "answered"
        except (asyncio.CancelledError, ConnectionError):
            context.abandon()
            raise
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            if context.path not in _UNCOUNTED:
                took_s = loop.time() - begun_at
                note(metrics, context, status, took_s)
        return response

    return middleware


def access_control(access: AccessControl) -> Middleware:
    """Return the middleware that asks whether a request may pass, before all else."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        context = request[REQUEST_CONTEXT]
        facts = AccessFacts(
            request.remote or "",
            request.method,
            context.path,
            context.route.kind,
            request.headers.get("Host", ""),
            request.headers.get("Origin", ""),
            request.headers,
        )
        refusal = access.check(facts)
        # A preflight's own answer has its headers of CORS already.
        if refusal is None or request.method != "OPTIONS":
            request[CORS] = access.cors_headers(facts)
        return await handler(request) if refusal is None else to_response(refusal)

    return middleware


CORS = web.RequestKey("cors", tuple)
"""Key under which a request keeps the headers that its answer gets."""


def add_cors_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Give an answer the headers of its request's origin."""
    for name, value in request.get(CORS, ()):
        response.headers.add(name, value)


@web.middleware
async def tell_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer our own faults in the caller's words, never with a bare 500."""
    try:
        return await handler(request)
    except (web.HTTPException, ConnectionError):
        raise
    except Exception as error:
        has_begun = BEGUN in request
        reply = failure(request, request[REQUEST_CONTEXT], error, has_begun=has_begun)
        return to_response(reply)


BEGUN = web.RequestKey("begun", bool)
"""Key on a request whose response has begun."""


def note_begun(request: web.BaseRequest) -> None:
    """Take note that headers are about to leave."""
    request[BEGUN] = True
