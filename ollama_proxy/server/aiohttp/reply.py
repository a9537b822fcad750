"""Send a response of our own through aiohttp's server."""

from aiohttp import web
from multidict import CIMultiDict

from ollama_proxy.core.http.reply import Reply


def to_response(reply: Reply) -> web.Response:
    """Return a reply as aiohttp's server takes it."""
    headers = CIMultiDict(reply.headers)
    return web.Response(status=reply.status, body=reply.body or None, headers=headers)
