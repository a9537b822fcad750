"""Answer orders and questions of people, in JSON; none are taken from web pages."""

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from ollama_proxy.core.access.decision import KeyRefusal
from ollama_proxy.core.access.refusal_replies import refusal_reply
from ollama_proxy.core.ollama.routes import Family
from ollama_proxy.server.caller import caller_of


def refuse_browsers(request: web.Request) -> None:
    """Let no web page give orders but our own, in a session.

    The requests of pages carry an Origin, those of commands don't.
    """
    if caller_of(request).is_own_page:
        return
    if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
        raise web.HTTPForbidden(text="orders are not taken from web pages")


def json_answer(body: object, status: int = 200) -> web.Response:
    """Return a response with a JSON body that must not be cached."""
    return raw_json_answer(msgspec.json.encode(body) + b"\n", status)


def raw_json_answer(body: bytes, status: int = 200) -> web.Response:
    """Return a response with a body that is JSON already."""
    return web.Response(
        status=status,
        body=body,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def refused_order(refusal: KeyRefusal) -> web.Response:
    """Return the response to an order that a limit of its key refuses."""
    reply = refusal_reply(Family.NATIVE, refusal)
    headers = CIMultiDict(reply.headers)
    return web.Response(status=reply.status, body=reply.body, headers=headers)
