"""Encode the answers to plain requests that need no instance."""

from typing import NamedTuple

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.routes import Family
from ollama_proxy.core.plans import Deny, Plan, Refuse, Say, Unavailable
from ollama_proxy.server.fast import response as client_response
from ollama_proxy.serving.request_context import RequestContext


class Encoded(NamedTuple):
    """Holds an answer of our own, as bytes."""

    status: int
    data: bytes


class OwnAnswers:
    """Encodes answers, with the date of ``clock``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def answer(self, context: RequestContext, plan: Plan) -> Encoded | None:
        """Return an answer without an instance; None if there is more to do."""
        if isinstance(plan, Unavailable):
            return self.unavailable(context, plan)
        if isinstance(plan, Say | Refuse | Deny):
            return self.encoded(context, context.served.replies.reply(context, plan))
        return None

    def unavailable(self, context: RequestContext, plan: Unavailable) -> Encoded:
        """Return the 503, as bytes that are remembered: many ask again and again."""
        family, date = context.route.family, int(self._clock.wall())
        told_id = context.request_id if family is Family.ANTHROPIC else ""
        status = context.served.replies.unavailable(context, plan)
        encode = client_response.encode_provisioning_reply
        return Encoded(503, encode(family, status, told_id, date))

    def encoded(self, context: RequestContext, reply: Reply) -> Encoded:
        """Return an answer of our own."""
        date = self._clock.wall()
        data = client_response.encoded(reply, context.method, date)
        return Encoded(reply.status, data)
