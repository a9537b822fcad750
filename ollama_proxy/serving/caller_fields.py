"""Describe the caller of a request: in its log line, and among those in progress."""

from typing import Final

from ollama_proxy.gateway.key_text import hide_keys
from ollama_proxy.serving.request_context import RequestContext

AGENT_LETTERS: Final = 120
"""How much of a User-Agent is kept: clients may send a megabyte."""

_LOOKED_AT = 1024


def caller_fields(context: RequestContext) -> dict[str, str]:
    """Return address, name of the key and User-Agent, as far as they are known.

    The User-Agent is the client's own text: a key in it is hidden, and bytes that are
    no text are escaped. Control characters are escaped where it is written, as in all
    other text.
    """
    caller, agent = context.caller, context.agent
    told = {"client": caller.address} if caller.address else {}
    if caller.key is not None:
        told["key"] = caller.key.name
    if agent:
        told["agent"] = _shown(agent)
    return told


def _shown(agent: str) -> str:
    """Return the beginning of a User-Agent, fit for JSON and without a key."""
    return shown_text(hide_keys(agent[:_LOOKED_AT])[:AGENT_LETTERS])


def shown_text(text: str) -> str:
    """Return a text that JSON can have: bytes that were no UTF-8 are escaped.

    They were read as lone surrogates.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
