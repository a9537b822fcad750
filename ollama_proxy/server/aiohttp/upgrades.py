"""Switch a connection to WebSocket, or end it: bytes after that are no requests."""

from aiohttp import hdrs, web

from ollama_proxy.server.aiohttp.behind import behind_of

_SWITCHING = 101


async def accept_upgrade(
    request: web.Request, web_socket: "web.WebSocketResponse[bool]"
) -> None:
    """Answer a request for a WebSocket with one. Raises aiohttp's 400 if it is none."""
    behind = behind_of(request)
    await web_socket.prepare(request)
    if behind is not None:
        behind.accept_upgrade()


def close_after_declined_upgrade(
    request: web.BaseRequest, response: web.StreamResponse
) -> None:
    """Have a connection end with any other answer to a request for a WebSocket."""
    if hdrs.UPGRADE in request.headers and response.status != _SWITCHING:
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"
