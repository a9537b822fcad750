"""The log line and the metric of a request, and how a fault of our own is told."""

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import ProxyError
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.error_bodies import SPOKE, error_body
from ollama_proxy.serving.cold_answers import json_reply
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.serving.request_body import OnTransport, reset
from ollama_proxy.serving.request_context import RequestContext

_EVENTS = {"relayed": log.REQUEST_RELAYED, "abandoned": log.REQUEST_ABANDONED}


def note(
    metrics: Metrics,
    method: str,
    exchange: RequestContext,
    status: int,
    took_s: float,
) -> None:
    """Write the line of a request: never its body, its query or its headers."""
    metrics.count_request(exchange.route.kind, exchange.outcome)
    event = _EVENTS.get(exchange.outcome, log.REQUEST_ANSWERED)
    keys = {
        "request_id": exchange.request_id,
        "method": method,
        "route": exchange.route.name,
        "kind": exchange.route.kind.value,
        "outcome": exchange.outcome,
        "status": status,
        "wait_s": round(exchange.wait_s, 3),
        "took_s": round(took_s, 3),
    }
    log.REQUESTS.write(event, keys)


def failure(
    client: OnTransport, exchange: RequestContext, error: Exception, *, has_begun: bool
) -> Reply:
    """Return the 500 that a fault of our own is told as; logs one that is a surprise.

    If a response has begun, the client is reset: raises `ConnectionResetError`.
    """
    exchange.outcome = "broken"
    message, reason = "the proxy failed; its log says why", "internal"
    if isinstance(error, ProxyError):
        message, reason = str(error), error.reason
    else:
        structlog.get_logger().error(log.REQUEST_FAILED, exc_info=error)
    if has_begun:
        reset(client)
        raise ConnectionResetError(str(error)) from error
    family = exchange.route.family
    body = error_body(family, 500, message, request_id=exchange.request_id)
    return json_reply(body, status=500, family=family).with_headers((SPOKE, reason))
