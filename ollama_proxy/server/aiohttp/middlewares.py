"""Wrap every request: its id, log line and metric, access, and our own errors.

One middleware does all of it, since each middleware costs a request one coroutine.
"""

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ollama_proxy.core.access.facts import AccessFacts
from ollama_proxy.core.access.keys import Caller
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.nodes.hub_routes import HEARTBEAT, TUNNEL
from ollama_proxy.core.ollama.routes import Kind
from ollama_proxy.gateway.credentials import SENT_IN
from ollama_proxy.server.access import AccessControl
from ollama_proxy.server.aiohttp.behind import behind_of, refusal
from ollama_proxy.server.aiohttp.hub_page import target_of
from ollama_proxy.server.aiohttp.refused_agents import RefusedAgents
from ollama_proxy.server.aiohttp.reply import to_response
from ollama_proxy.server.aiohttp.request import BEGUN, REQUEST_CONTEXT, begin
from ollama_proxy.server.caller import CALLER
from ollama_proxy.serving.client_writer import reset
from ollama_proxy.serving.interruptions import interruption_reply, take_interruption
from ollama_proxy.serving.key_settling import settle
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.serving.relay import Services
from ollama_proxy.serving.request_context import RequestContext
from ollama_proxy.serving.request_log import failure, note

_FIRST_ERROR = 400
_UNCOUNTED = frozenset({"/status", "/healthz", "/metrics", "/-/", TUNNEL})
"""What programs, nodes, or a page that refreshes itself, ask all day."""


def surround(services: Services, access: AccessControl) -> Middleware:
    """Return the middleware that handles what is the same for every request.

    It refuses a request that can't be served, checks access first, answers an internal
    error in the caller's API format, and registers, logs and counts each request.
    """
    metrics, active, pools = services.metrics, services.active, services.pools
    lines = _Lines(metrics)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        behind = behind_of(request)
        if behind is not None:
            behind.note_begun(request)
            if behind.refuses(request):
                behind.note_answered()
                return refusal(behind, metrics)
        context = request[REQUEST_CONTEXT] = begin(request, pools, target_of(request))
        if behind is not None:
            context.tried_on = behind.take_tried_on()
        loop = asyncio.get_running_loop()
        begun_at = loop.time()
        active.begin(context, begun_at)
        status = 0
        try:
            refused = _check(access, request, context)
            if refused is not None:
                response: web.StreamResponse = to_response(refused)
            else:
                response = await handler(request)
            status = response.status
            if context.route.kind is Kind.ADMIN and status < _FIRST_ERROR:
                context.outcome = "answered"
        except (asyncio.CancelledError, ConnectionError) as error:
            response = _cut_off(request, context, error)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            raise
        except Exception as error:
            reply = failure(request, context, error, has_begun=BEGUN in request)
            response, status = to_response(reply), reply.status
        finally:
            active.end(context)
            settle(services.usage, context)
            if behind is not None:
                behind.note_answered()
            lines.note(context, status, begun_at, loop.time())
        return response

    return middleware


class _Lines:
    """Logs and counts requests, but for those that are usual or refused too often."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics, self._refused = metrics, RefusedAgents()

    def note(
        self, context: RequestContext, status: int, begun_at: float, now: float
    ) -> None:
        """Note a request that has ended."""
        if self._refused.is_too_many(context.path, status, now):
            self._metrics.count_request(context.route.kind, context.outcome)
        elif not _is_usual(context.path, status):
            note(self._metrics, context, status, now - begun_at)


def _is_usual(path: str, status: int) -> bool:
    """Tell whether a request is one of those that programs send all day.

    1 000 nodes would write 33 lines a second; only a beat that is refused is one.
    """
    is_beat_taken = path == HEARTBEAT and 0 < status < _FIRST_ERROR
    return is_beat_taken or path in _UNCOUNTED


def _cut_off(
    request: web.Request,
    context: RequestContext,
    error: asyncio.CancelledError | ConnectionError,
) -> web.Response:
    """Return the answer to a request that we ended; raises if its client has left.

    A response that has begun is reset, or it might look complete.
    """
    is_cancelled = isinstance(error, asyncio.CancelledError)
    if is_cancelled and BEGUN not in request and take_interruption(context):
        response = to_response(interruption_reply(context))
        response.force_close()  # its body may be half read
        return response
    if is_cancelled and context.interrupted_by:
        reset(request)
    context.abandon()
    # aiohttp logs any other exception of a handler as an error, but its loop is about
    # to cancel this one.
    if not is_cancelled and _is_gone(request):
        raise asyncio.CancelledError from error
    raise error


def _is_gone(request: web.Request) -> bool:
    """Tell whether the connection to the client has ended."""
    return request.transport is None or request.transport.is_closing()


def _check(
    access: AccessControl, request: web.Request, context: RequestContext
) -> Reply | None:
    """Return the refusal of a request that may not pass; else note its caller."""
    fields = request.headers
    facts = AccessFacts(
        access.client_address(request.remote or "", fields),
        context.method,
        context.path,
        context.route,
        fields.get("Host", ""),
        fields.get("Origin", ""),
        fields,
        [(name, value) for name in SENT_IN for value in fields.getall(name, ())],
    )
    context.caller = Caller(facts.peer)
    told = access.check(facts)
    refused = told if isinstance(told, Reply) else None
    if isinstance(told, Caller):
        request[CALLER] = told
        context.identify(told)
        context.hides_credentials = access.hides_credentials
    # The response to a preflight has its CORS headers already.
    if facts.origin and (refused is None or context.method != "OPTIONS"):
        request[CORS] = access.cors_headers(facts)
    return refused


CORS = web.RequestKey("cors", tuple)
"""Key under which a request keeps the headers that its answer gets."""


def add_cors_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Give an answer the headers of its request's origin."""
    for name, value in request.get(CORS, ()):
        response.headers.add(name, value)
