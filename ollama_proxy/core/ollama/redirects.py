"""Redirect a client to the path it meant, as the two routers of a real Ollama do.

First Go's ``ServeMux`` cleans any path, then gin removes a trailing slash if that gives
a route of the same method.
"""

import posixpath
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, unquote

_HTML = (
    ("&", "&amp;"),
    ("<", "&lt;"),
    (">", "&gt;"),
    ('"', "&#34;"),
    ("'", "&#39;"),
)
_KEPT = "/!$&'()*+,;=:@~-._"


@dataclass(frozen=True, slots=True)
class Redirect:
    """Says where to ask instead. ``html`` is a page for a browser, if there is one."""

    status: int
    location: str
    html: str | None


def redirect_of(method: str, target: str) -> Redirect:
    """Return the redirect for a path that is nearly one of Ollama's.

    ``target``: path and query as the client sent them.
    """
    path, mark, query = target.partition("?")
    cleaned = clean_path(path)
    if cleaned != path:
        status, moved = HTTPStatus.TEMPORARY_REDIRECT, quote(cleaned, safe=_KEPT)
    else:
        is_get = method == "GET"
        status = (
            HTTPStatus.MOVED_PERMANENTLY if is_get else HTTPStatus.TEMPORARY_REDIRECT
        )
        moved = quote(unquote(path[:-1]), safe=_KEPT)
    location = moved + mark + query
    html = f'<a href="{_escaped(location)}">{status.phrase}</a>.\n\n'
    return Redirect(status, location, html if method in {"GET", "HEAD"} else None)


def clean_path(path: str) -> str:
    """Return a path without ``//``, ``/.`` and ``/..``; a slash at its end stays."""
    if "//" not in path and "/." not in path:
        return path
    cleaned = "/" + posixpath.normpath(path).lstrip("/")
    return f"{cleaned}/" if path.endswith("/") and cleaned != "/" else cleaned


def _escaped(text: str) -> str:
    for character, escape in _HTML:
        text = text.replace(character, escape)
    return text
