"""List the requests in progress for an administrator: ``active`` in ``/status``.

Of a request it has its sender, its route and its model, never its text.
"""

import itertools
from typing import Any, Final

from ollama_proxy.core.ollama.body_model import model_in_json
from ollama_proxy.core.ollama.routes import Kind
from ollama_proxy.serving.active_requests import ActiveRequests
from ollama_proxy.serving.caller_fields import caller_fields, shown_text
from ollama_proxy.serving.request_context import RequestContext, Stage

MOST: Final = 100
"""How many are listed, the oldest first; `in_flight` and `waiting` count all."""

_LONGEST_MODEL = 256
_HEAD = 4096
"""How much of a body is looked at: its model is nearly always the first field."""

_STATES = {
    Stage.ARRIVING: "arriving",
    Stage.WAITING: "waiting",
    Stage.SERVED: "relaying",
}


def active_body(active: ActiveRequests, now: float) -> list[dict[str, Any]]:
    """Return the oldest requests in progress; ``now``: in time of the event loop.

    Requests to the proxy's own endpoints are left out: they keep nothing awake.
    """
    clients = (one for one in active if one.route.kind is not Kind.ADMIN)
    return [_entry(one, now) for one in itertools.islice(clients, MOST)]


def _entry(context: RequestContext, now: float) -> dict[str, Any]:
    named = {"client": "", "key": None, "agent": ""} | caller_fields(context)
    return {
        "request_id": context.request_id,
        **named,
        "route": context.asked_route,
        "model": shown_text(_model(context)[:_LONGEST_MODEL]) or None,
        "pool": context.served.name,
        "since_s": round(max(0.0, now - context.begun_at), 1),
        "state": _STATES[context.stage],
    }


def _model(context: RequestContext) -> str:
    """Return the model of a request; "" if it names none.

    A request that was relayed at once was not read: its body is looked at now.
    """
    if context.model or not context.route.takes_json:
        return context.model or ""
    return model_in_json(context.body.head[:_HEAD]) or ""
