"""Have a request admitted by its key. `key_settling` ends the permit."""

from ollama_proxy.core.access.decision import KeyRefusal
from ollama_proxy.core.plans import Admit
from ollama_proxy.gateway.key_limits import KeyLimits
from ollama_proxy.serving.request_context import RequestContext


def admit(
    limits: KeyLimits, context: RequestContext, plan: Admit, now: float
) -> KeyRefusal | None:
    """Have the key of a request admit it; return why it does not.

    ``now``: a moment of `Clock.now`.
    """
    if context.key is None:
        return None
    told = limits.admit(context.key, plan.work, now)
    if isinstance(told, KeyRefusal):
        return told
    context.permit, context.is_admitted = told, True
    return None


def undo(context: RequestContext) -> None:
    """Forget that a request was admitted: another server begins anew with it."""
    permit, context.permit = context.permit, None
    if permit is not None:
        permit.undo()
