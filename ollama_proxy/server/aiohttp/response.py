"""Begin the answer of an instance through aiohttp's server, byte for byte."""

from collections.abc import Mapping

from aiohttp import HttpVersion11, web

from ollama_proxy.core.http import headers
from ollama_proxy.serving.client_writer import Head

UNTYPED = web.ResponseKey("untyped", bool)
"""Key on a response whose instance named no content type."""


async def begin_response(
    request: web.BaseRequest, head: Head, added: Mapping[str, str], body: bytes
) -> web.StreamResponse:
    """Begin a response through aiohttp: a `StartResponse`."""
    fields = headers.for_client(head.headers)
    status, reason = head.status, head.reason
    response = (
        web.Response(status=status, reason=reason, headers=fields, body=body)
        if body
        else web.StreamResponse(status=status, reason=reason, headers=fields)
    )
    close_if_unframed(request, response)
    if not request.content.is_eof():
        response.force_close()  # the rest of the upload is not read
    kept = head.headers.get("Connection", "").lower() == "keep-alive"
    if kept and request.keep_alive and response.keep_alive is not False:
        response.headers["Connection"] = "keep-alive"  # Ollama sends it on some routes
    response.headers.update(added)
    response[UNTYPED] = "Content-Type" not in head.headers
    await response.prepare(request)
    return response


def close_if_unframed(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """End a body without a length by a close, for clients that know no chunks."""
    if request.version < HttpVersion11 and "Content-Length" not in response.headers:
        response.force_close()


def strip_own_headers(response: web.StreamResponse) -> None:
    """Remove what aiohttp adds: Ollama names no server and invents no type."""
    response.headers.pop("Server", None)
    if response.get(UNTYPED):
        response.headers.popall("Content-Type", None)
