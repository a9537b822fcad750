"""Close connections after a request with large headers, to free their memory.

aiohttp keeps the last request of an idle connection until the next one: with headers of
1 MB, a thousand idle connections would hold 2 GB.
"""

from itertools import chain
from typing import Final

from aiohttp import web

KEPT_HEAD: Final = 384 * 1024
"""Bytes of headers that an idle connection may hold: more than any client sends."""


def close_after_large_head(
    request: web.BaseRequest, response: web.StreamResponse
) -> None:
    """Have the connection of a large request end with its answer, and say so."""
    size = sum(map(len, chain.from_iterable(request.raw_headers)))
    if size > KEPT_HEAD:
        response.force_close()
        response.headers["Connection"] = "close"
