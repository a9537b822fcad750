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
    return (error_text(body) or _detail_of(body))[:_LONGEST]


def _detail_of(body: bytes) -> str:
    try:
        detail = msgspec.json.decode(body, type=_Refusal).detail
    except UNREADABLE:
        return ""
    return detail if isinstance(detail, str) else "; ".join(one.msg for one in detail)
