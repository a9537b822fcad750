"""Fill the templates of the page; they come with the package.

Every value is escaped, and no browser may run, load or frame anything: the page has no
script, and its style stands in it, named by its hash.
"""

import base64
import hashlib
from importlib.resources import files
from typing import Any, Final

from aiohttp import web
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from multidict import CIMultiDict

from ollama_proxy.core.http.reply import Reply

REFRESH_S: Final = 5


def _source(name: str) -> str:
    """Return a file of this package as text."""
    folder = files("ollama_proxy.server.page")
    return (folder / "templates" / name).read_text("utf-8")


STYLE: Final = _source("style.css")
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{_DIGEST}'",
        "img-src data:",  # an icon of nothing, or a browser asks for /favicon.ico
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS: Final = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    # Not `no-referrer`: a form would be sent with `Origin: null`, as by a stranger.
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""What every page of ours is sent with."""

_TEMPLATES = Environment(
    loader=FunctionLoader(_source),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_TEMPLATES.globals["style"] = Markup(STYLE)  # noqa: S704 - a file of ours
_TEMPLATES.globals["refresh_s"] = REFRESH_S
_TEMPLATES.globals["home"] = ""  # what leads from a page to the others


def html(name: str, **values: Any) -> bytes:
    """Return the template ``name`` with its gaps filled."""
    return _TEMPLATES.get_template(name).render(values).encode("utf-8", "replace")


def html_reply(status: int, name: str, **values: Any) -> Reply:
    """Return a page as a response."""
    return Reply(status, html(name, **values), HEADERS)


def as_response(reply: Reply) -> web.Response:
    """Return a page for aiohttp's server."""
    headers = CIMultiDict(reply.headers)
    return web.Response(status=reply.status, body=reply.body, headers=headers)
