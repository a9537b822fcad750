"""Write what the proxy answers by itself, by the plan that `decide` made."""

from dataclasses import replace

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.access.refusal_replies import refusal_reply
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.nodes.plain_request import is_plain
from ollama_proxy.core.ollama.error_bodies import (
    SPOKE,
    ProvisioningStatus,
    empty_answer,
    error_body,
    escape_html,
)
from ollama_proxy.core.ollama.go_words import rfc3339
from ollama_proxy.core.ollama.native_refusals import Refusal
from ollama_proxy.core.ollama.request_fields import BodyFields, Need, need_of
from ollama_proxy.core.ollama.routes import Family
from ollama_proxy.core.plans import Deny, Known, Refuse, Say, Unavailable
from ollama_proxy.core.waiting_order import turn_of
from ollama_proxy.serving.asleep_status import told_asleep
from ollama_proxy.serving.cold_answers import (
    ASLEEP,
    ColdAnswers,
    json_reply,
    provisioning_reply,
    root,
)
from ollama_proxy.serving.loop_refusal import loop_refusal
from ollama_proxy.serving.node_status import model_away_words
from ollama_proxy.serving.pool_status import PoolStatus
from ollama_proxy.serving.request_context import RequestContext
from ollama_proxy.upstream.loop_mark import LoopMark


class OwnReplies:
    """Writes replies, and records the outcome on the request."""

    def __init__(
        self,
        cold: ColdAnswers,
        status: PoolStatus,
        mark: LoopMark,
        clock: Clock,
    ) -> None:
        self._cold = cold
        self._status = status
        self._mark = mark
        self._clock = clock

    def reply(
        self, context: RequestContext, plan: Say | Refuse | Unavailable | Deny
    ) -> Reply:
        """Return the answer that a plan means."""
        match plan:
            case Unavailable():
                status = self.unavailable(context, plan)
                return provisioning_reply(
                    context.route.family, status, context.request_id
                )
            case Refuse():
                context.outcome = "refused"
                return _refused(context, plan.refusal)
            case Deny():
                context.outcome = "refused"
                context.is_denied = plan.refusal.is_of_valid_key
                family = context.route.family
                return refusal_reply(family, plan.refusal, context.request_id)
            case Say():
                return self._known(context, plan)

    def unavailable(
        self, context: RequestContext, plan: Unavailable
    ) -> ProvisioningStatus:
        """Return why there is no instance for a request, and when to ask again."""
        context.outcome = "provisioning"
        status, problem = self._status, plan.problem
        pool, model = status.pool, context.model
        if problem is None and model and not pool.may_start_for(model):
            problem = model_away_words(pool, model, is_plain=is_plain(context))
        if context.may_wake or not pool.controllers:  # nodes are not for keys to wake
            return status.waiting(problem, turn_of(context.caller))
        told = told_asleep(status, context.caller, problem)
        if told.status == ASLEEP:
            context.outcome = "asleep"
        return told

    def _known(self, context: RequestContext, plan: Say) -> Reply:
        match plan.what:
            case Known.LOOP:
                return loop_refusal(self._mark, context)
            case Known.ROOT:
                context.outcome = "asleep"
                return root()
            case Known.COLD:
                context.outcome = "asleep"
                return self._cold.answer(
                    context.route,
                    context.method,
                    context.target,
                    plan.fields,
                    context.agent,
                )
            case Known.HIDDEN:
                context.outcome = "refused"
                return self._hidden(context, plan.fields)
            case Known.DONE:
                context.outcome = "asleep"
                return self._done(context, plan.fields or BodyFields())
            case Known.UNWOKEN:
                context.outcome = "provisioning"
                family = context.route.family
                waiting = self._status.unwoken(turn_of(context.caller))
                return provisioning_reply(family, waiting, context.request_id)

    def _hidden(self, context: RequestContext, fields: BodyFields | None) -> Reply:
        """Answer as if a model were not there: as the instance would, if one is up."""
        reply = self._cold.hidden(context.route, context.target, fields)
        if not self._status.pool.is_ready:
            return reply
        headers = tuple(one for one in reply.headers if one[0] != SPOKE)
        return replace(reply, headers=headers)

    def _done(self, context: RequestContext, fields: BodyFields) -> Reply:
        """Answer what only loads or unloads a model as an Ollama that has done it."""
        name = context.route.name
        created_at = rfc3339(self._clock.wall())
        reason: Need = need_of(name, fields)
        body = empty_answer(name, fields.model_name, created_at, reason.value)
        return json_reply(body, family=Family.NATIVE)


def _refused(context: RequestContext, refused: Refusal) -> Reply:
    """Return a refusal as Ollama writes it: a translated one ends with a newline."""
    family = context.route.family
    status, message = refused.status, refused.message
    body = error_body(family, status, message, request_id=context.request_id)
    body = escape_html(body) + (b"\n" if refused.is_translated else b"")
    typed_as = Family.NATIVE if refused.has_charset else Family.OPENAI
    return json_reply(body, status=status, family=typed_as)
