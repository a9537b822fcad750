"""Settle a request that has a key, at its end: what it used is counted once.

Both servers call `settle` for every request that ends, however it ends, and
`begin_metering` before one is sent to an instance.
"""

import asyncio
from functools import partial
from typing import Final

from ollama_proxy.core.access.keys import Key
from ollama_proxy.core.access.route_classes import WORK, RouteClass, route_class
from ollama_proxy.core.access.token_estimate import BYTES_A_TOKEN, work_of
from ollama_proxy.core.body_look import look
from ollama_proxy.core.ollama.body_model import model_in_form, model_in_json
from ollama_proxy.gateway.permits import Permit
from ollama_proxy.gateway.usage_book import UsageBook
from ollama_proxy.serving.answer_meter import AnswerMeter, ignore_growth
from ollama_proxy.serving.request_context import RequestContext

LATE_BYTES: Final = 8 * 1024
"""Bytes of a request and its answer that are held until they are counted."""

_SMALL = 16 * 1024  # a refused request costs no more than a look at so much


def begin_metering(context: RequestContext) -> AnswerMeter | None:
    """Return the meter of a request that is about to be sent to an instance.

    None if it has no key, or only reads: nothing is counted then.
    """
    if context.caller.key is None:
        return None
    permit, meter = context.permit, context.meter
    if meter is None:
        needed = _class_of(context) if permit is None else permit.work.route_class
        if needed not in WORK:
            return None
        grow = permit.grow if permit is not None else ignore_growth
        is_change = needed is RouteClass.WRITE
        meter = AnswerMeter(context.route.name, grow, is_change=is_change)
        context.meter = meter
    meter.start(asyncio.get_running_loop().time())
    return meter


def settle(usage: UsageBook, context: RequestContext) -> None:
    """Count what a request used, and end its permit; further calls do nothing."""
    key = context.caller.key
    if key is None:
        return
    if context.is_denied:
        context.is_denied = False
        is_small = len(context.body.head) <= _SMALL
        usage.refuse(key, _model_of(context) if is_small else "")
    permit, context.permit = context.permit, None
    meter, context.meter = context.meter, None
    try:
        if meter is not None and (meter.status or _was_done(context, meter)):
            # Nothing depends on its figures now, and little is held of it.
            is_free = permit is None or not permit.needs_figures
            size = len(context.body.head) + len(meter.ends[0] if meter.ends else b"")
            if is_free and len(meter.ends) == 1 and size <= LATE_BYTES:
                count = partial(_count, usage, context, key, permit, meter)
                usage.later(count, meter.ended_at)
            else:
                _count(usage, context, key, permit, meter)
    finally:
        if permit is not None:
            permit.end()  # nothing was done, or it is settled already


def _count(
    usage: UsageBook,
    context: RequestContext,
    key: Key,
    permit: Permit | None,
    meter: AnswerMeter,
) -> None:
    """Count what an instance did for a request."""
    tokens = meter.tokens(lambda: _prompt_bytes(context))
    if permit is not None and not meter.is_refused:
        is_measured = tokens.output > 0 and not tokens.estimated
        permit.settle(tokens.prompt, tokens.output, is_measured=is_measured)
    model = meter.model  # the one that was run, whatever the body repeats
    if not model and permit is not None:
        model = permit.work.model
    model = model or _model_of(context)
    usage.add(key, model, tokens, meter.seconds, is_served=meter.is_success)


def _was_done(context: RequestContext, meter: AnswerMeter) -> bool:
    """Tell whether an instance may have worked on a request that has no answer."""
    return meter.was_sent and (context.may_be_done or context.problem is None)


def _class_of(context: RequestContext) -> RouteClass | None:
    return route_class(context.method, context.path, context.route)


def _model_of(context: RequestContext) -> str:
    """Return the model that a request names; "" if it isn't seen."""
    if context.model:
        return context.model
    if (fields := look(context)) is not None:
        return fields.model_name
    if context.body.encoding:
        return ""
    head = context.body.head
    read = model_in_form if head.startswith(b"--") else model_in_json
    return read(head) or ""


def _prompt_bytes(context: RequestContext) -> int:
    """Return the bytes of a prompt, without pictures and sounds in it."""
    needed = _class_of(context) or RouteClass.CHAT
    work = work_of(context.route, needed, "", context.body.head)
    return work.prompt_tokens * BYTES_A_TOKEN
