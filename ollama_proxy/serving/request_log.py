"""Log and count a request, and turn a fault of our own into an answer."""

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import ProxyError
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.error_bodies import SPOKE, error_body
from ollama_proxy.serving.caller_fields import caller_fields
from ollama_proxy.serving.client_writer import OnTransport, reset
from ollama_proxy.serving.cold_answers import json_reply
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.serving.request_context import RequestContext

_EVENTS = {
    "relayed": log.REQUEST_RELAYED,
    "abandoned": log.REQUEST_ABANDONED,
    "interrupted": log.REQUEST_INTERRUPTED,
}


def note(metrics: Metrics, context: RequestContext, status: int, took_s: float) -> None:
    """Write the line of a request, with its sender and its outcome.

    Never its body or its query; of its headers the beginning of the User-Agent alone.
    """
    metrics.count_request(context.route.kind, context.outcome)
    event = _EVENTS.get(context.outcome, log.REQUEST_ANSWERED)
    keys = {
        "request_id": context.request_id,
        "method": context.method,
        "route": context.asked_route,
        "kind": context.route.kind.value,
        "outcome": context.outcome,
        "status": status,
        "wait_s": round(context.wait_s, 3) if context.wait_s else 0.0,
        "took_s": round(took_s, 3),
        **caller_fields(context),
    }
    if context.served.is_one_of_several:
        keys["pool"] = context.served.name
    if context.node:
        keys |= {"node": context.node, "failed_nodes": len(context.tried_on)}
    log.REQUESTS.write(event, keys)


def failure(
    client: OnTransport, context: RequestContext, error: Exception, *, has_begun: bool
) -> Reply:
    """Return the 500 for an internal error, and log it if it is unexpected.

    If a response has begun, the connection is reset instead: raises
    `ConnectionResetError`.
    """
    context.outcome = "broken"
    message, reason = "the proxy failed; its log says why", "internal"
    if isinstance(error, ProxyError):
        message, reason = str(error), error.reason
    else:
        structlog.get_logger().error(log.REQUEST_FAILED, exc_info=error)
    if has_begun:
        reset(client)
        raise ConnectionResetError(str(error)) from error
    family = context.route.family
    body = error_body(family, 500, message, request_id=context.request_id)
    return json_reply(body, status=500, family=family).with_headers((SPOKE, reason))
