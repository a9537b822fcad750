"""Answer orders and questions of people, in JSON; none are taken from web pages."""

import msgspec
from aiohttp import web


def refuse_browsers(request: web.Request) -> None:
    """Let no web page give orders: its requests carry an Origin, the CLI's don't."""
    if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
        raise web.HTTPForbidden(text="orders are not taken from web pages")


def json_answer(body: object, status: int = 200) -> web.Response:
    """Return a response with a JSON body that must not be cached."""
    encoded = msgspec.json.encode(body) + b"\n"
    return web.Response(
        status=status,
        body=encoded,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
