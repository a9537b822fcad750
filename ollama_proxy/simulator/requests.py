"""Read requests as Ollama does: JSON by Go's rules, bodies that are left unread."""

import contextlib
from typing import Any

import msgspec
from aiohttp import web

from ollama_proxy.core.ollama.cold_refusals import refusal
from ollama_proxy.core.ollama.go_json import UnreadBodyError, are_folded, read_members
from ollama_proxy.core.ollama.go_syntax import GoSyntaxError
from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.ollama.routes import classify

_DRAINED = 256 * 1024


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return a request's JSON object, or refuse it in Ollama's words."""
    await invite(request)
    raw = b"".join([data async for data in request.content.iter_any()])
    refused = refusal(classify(request.method, request.path).name, raw)
    if refused is not None and refused.status == 400:  # noqa: PLR2004
        raise web.HTTPBadRequest(text=refused.message)
    try:
        return _decoded(raw)
    except (GoSyntaxError, UnreadBodyError) as error:
        raise web.HTTPBadRequest(text=str(error)) from error


def _decoded(raw: bytes) -> dict[str, Any]:
    """Return the first JSON object of a body, read as Go reads it."""
    try:
        body = msgspec.json.decode(raw)
        if isinstance(body, dict) and are_folded(body):
            return body
    except UNREADABLE:
        pass
    members: dict[str, Any] = {}
    for name, one in read_members(raw).items():
        with contextlib.suppress(msgspec.MsgspecError):  # Go ignores unknown fields
            members[name] = msgspec.json.decode(one)
    return members


def model_name(body: dict[str, Any]) -> str:
    """Return the model: ``model``, else the older ``name``."""
    return str(body.get("model") or body.get("name") or "")


async def drained(response: web.Response, request: web.Request) -> web.Response:
    """Drain a small unread body; close the connection of a big one."""
    length = request.content_length
    size = 0 if length is None else length
    if "Expect" in request.headers:
        size = _DRAINED + 1
    while size <= _DRAINED and (data := await request.content.readany()):
        size += len(data) if length is None else 0
    if size > _DRAINED:
        response.force_close()
    return response


async def invite(request: web.Request) -> None:
    """Send ``100 Continue`` to a client that waits for it."""
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def invite_later(_request: web.Request) -> None:
    """Leave ``100 Continue`` to the handler, as Go does."""
