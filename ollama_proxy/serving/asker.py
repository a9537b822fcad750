"""Describe the sender of a request: in its log line, and among those in progress."""

from typing import Final

from ollama_proxy.serving.request_context import RequestContext

AGENT_LETTERS: Final = 120
"""How much of a User-Agent is kept: clients may send a megabyte."""


def asker(context: RequestContext) -> dict[str, str]:
    """Return address, name of the key and User-Agent, as far as they are known.

    The User-Agent is the client's own text. Control characters in it are escaped where
    it is written, as in all other text.
    """
    caller, agent = context.caller, context.agent
    told = {"client": caller.address} if caller.address else {}
    if caller.key is not None:
        told["key"] = caller.key.name
    if agent:
        told["agent"] = agent[:AGENT_LETTERS]
    return told
