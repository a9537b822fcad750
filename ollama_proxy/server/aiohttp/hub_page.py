"""Recognise a browser that opens the hub's own address: it gets the page there.

The former hub had its page at ``/``, where Ollama tells programs that it runs.
"""

from typing import Final

from aiohttp import web

from ollama_proxy.server.aiohttp.behind import behind_of
from ollama_proxy.server.page.login_page import wants_html
from ollama_proxy.server.raw_target import raw_path, raw_target

PAGE: Final = "/-/"
"""Where the page is by its own name."""

_READS = frozenset({"GET", "HEAD"})


def is_for_page(request: web.BaseRequest) -> bool:
    """Tell whether a request for ``/`` is answered by the page."""
    path = raw_path(request)
    if path != "/" or request.method not in _READS:
        return False
    behind = behind_of(request)
    is_hub = behind is not None and behind.is_hub
    return is_hub and wants_html(request.headers.get("Accept", ""))


def target_of(request: web.BaseRequest) -> str:
    """Return path and query of a request, of one for the page by its own name."""
    target = raw_target(request)
    return PAGE + target[1:] if is_for_page(request) else target
