"""Read the target of a request as its client wrote it."""

from aiohttp import web


def raw_target(request: web.BaseRequest) -> str:
    """Return path and query as the client wrote them, without scheme and host."""
    target = request.raw_path
    return target if target.startswith("/") else request.rel_url.raw_path_qs


def raw_path(request: web.BaseRequest) -> str:
    """Return the path as the client wrote it, without the query."""
    return raw_target(request).partition("?")[0]
