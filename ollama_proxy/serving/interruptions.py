"""Tell a client why its request was interrupted: its key was removed, for example.

`ActiveRequests.interrupt` cancels the task of a request, which lets go of its instance
as if the client had left. Whatever part of the request can still tell its client why
takes the interruption here, and the task goes on.
"""

import asyncio
from typing import Final

from ollama_proxy.core.access.decision import no_key
from ollama_proxy.core.access.refusal_replies import refusal_reply
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.serving.request_context import RequestContext

TELL_S: Final = 1.0
"""How long a client that reads nothing may delay the end of its connection."""


def take_interruption(context: RequestContext) -> bool:
    """Tell whether a request was interrupted by us, and not by its client.

    Call it in the task of the request, on its `CancelledError`. If True, the task is
    not cancelled any more, and should send ``interrupted_by`` to the client.
    """
    task = asyncio.current_task()
    if not context.interrupted_by or context.outcome == "interrupted" or task is None:
        return False
    task.uncancel()
    context.outcome = "interrupted"
    return True


def interruption_reply(context: RequestContext) -> Reply:
    """Return the answer to an interrupted request whose response has not begun."""
    refusal = no_key(context.interrupted_by)
    return refusal_reply(context.route.family, refusal, context.request_id)
