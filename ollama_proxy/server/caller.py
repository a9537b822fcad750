"""Keep the caller of a request of aiohttp's server with it."""

from typing import Final

from aiohttp import web

from ollama_proxy.core.access.keys import NOBODY, Caller

CALLER: Final = web.RequestKey("caller", Caller)
"""Key under which a request keeps its caller, once access was checked."""


def caller_of(request: web.BaseRequest) -> Caller:
    """Return the caller of a request that passed the check of access."""
    caller: Caller = request.get(CALLER, NOBODY)
    return caller
