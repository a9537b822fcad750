"""Refuse a request that has passed this proxy before."""

from collections.abc import Iterable

from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.error_bodies import SPOKE, error_body
from ollama_proxy.serving.cold_answers import json_reply
from ollama_proxy.serving.request_context import RequestContext
from ollama_proxy.upstream.loop_mark import LOOP_DETECTED, VIA, LoopMark


def loop_refusal(
    mark: LoopMark, marks: Iterable[str], context: RequestContext
) -> Reply | None:
    """Return the 508 for a request that may not be sent on; None if it may.

    ``marks`` are the values of its `VIA` headers. Nothing is woken for it, and it is no
    use. The answer carries the mark, by which the proxy knows that its own probe came
    back.
    """
    if (message := mark.objection(marks)) is None:
        return None
    family, request_id = context.route.family, context.request_id
    body = error_body(family, LOOP_DETECTED, message, request_id=request_id)
    reply = json_reply(body, status=LOOP_DETECTED, family=family)
    return reply.with_headers((SPOKE, "loop"), (VIA, mark.text))
