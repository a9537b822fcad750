"""Refuse what nodes and their owners ask, in the words of former hubs and of Ollama."""

from typing import Final

from aiohttp import web

from ollama_proxy.server.admin.answers import json_answer

_UNAUTHORIZED: Final = 401


def refused(status: int, message: str) -> web.Response:
    """Return a refusal; one for want of a key names the way to send it."""
    response = json_answer({"detail": message, "error": message}, status=status)
    if status == _UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="ollama-proxy"'
    return response
