"""Read what a node says against a request: Ollama's words, or its agent's own. Pure.

Ollama says ``{"error": …}``. Agents, the former one too, say ``{"detail": …}``: a text,
or, as FastAPI refuses a body, a list of objects with ``msg``.
"""

from typing import Final

import msgspec

from ollama_proxy.core.ollama.activity import error_text
from ollama_proxy.core.ollama.loose_json import UNREADABLE

_LONGEST: Final = 200
"""Characters of the sentence that are kept."""


class _Fault(msgspec.Struct):
    msg: str


class _Refusal(msgspec.Struct):
    detail: str | list[_Fault]


def said_in(body: bytes) -> str:
    """Return the sentence of an error, of Ollama's before the agent's; "" if none."""
    return error_text(body)[:_LONGEST] or detail_of(body) or ""


def detail_of(body: bytes) -> str | None:
    """Return the sentence of an agent's own error; None for what is none of it."""
    try:
        detail = msgspec.json.decode(body, type=_Refusal).detail
    except UNREADABLE:
        return None
    said = detail if isinstance(detail, str) else "; ".join(one.msg for one in detail)
    return said[:_LONGEST]
