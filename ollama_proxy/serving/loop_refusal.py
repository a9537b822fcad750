"""Refuse a request that has passed this proxy before."""

from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.error_bodies import SPOKE, error_body
from ollama_proxy.serving.cold_answers import json_reply
from ollama_proxy.serving.request_context import RequestContext
from ollama_proxy.upstream.loop_mark import LOOP_DETECTED, VIA, LoopMark


def loop_refusal(mark: LoopMark, context: RequestContext) -> Reply:
    """Return the 508 for a request that must not be relayed, by its ``objection``.

    The response carries the proxy's mark, by which the proxy recognises its own probe.
    """
    family, request_id = context.route.family, context.request_id
    message = context.objection or ""
    body = error_body(family, LOOP_DETECTED, message, request_id=request_id)
    reply = json_reply(body, status=LOOP_DETECTED, family=family)
    return reply.with_headers((SPOKE, "loop"), (VIA, mark.text))
