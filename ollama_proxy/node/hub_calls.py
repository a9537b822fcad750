"""Ask a hub for something once, and tell a hub that is away from one that refuses."""

from typing import Final

import aiohttp

from ollama_proxy.node.hub_client import (
    HubAwayError,
    HubRefusedError,
    calling_hub,
    quoted,
)

CALL_S: Final = 15.0
"""How long a hub may take to answer."""

_LONGEST_ANSWER = 64 * 1024
_TOO_MANY = 429
_HEADERS = {"Content-Type": "application/json"}


async def ask_hub(
    session: aiohttp.ClientSession,
    url: str,
    body: bytes | None = None,
    *,
    limit_s: float = CALL_S,
) -> bytes:
    """Send a body, or ask without one; return the answer to it.

    Raises `HubAwayError` for a hub that may answer later; `HubRefusedError`.
    """
    method = "GET" if body is None else "POST"
    async with (
        calling_hub(limit_s),
        session.request(
            method, url, data=body, headers=_HEADERS, allow_redirects=False
        ) as answer,
    ):
        status, told = answer.status, await _read(answer)
    if 200 <= status < 300:  # noqa: PLR2004 - OK
        return told
    words = f"it answered {status}: {quoted(told.decode(errors='replace'))}"
    if status >= 500 or status == _TOO_MANY:  # noqa: PLR2004 - the server's own faults
        raise HubAwayError(words)
    raise HubRefusedError(words)


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    read = bytearray()
    async for piece in answer.content.iter_any():
        read += piece
        if len(read) > _LONGEST_ANSWER:
            raise HubRefusedError("it answers more than a hub does")
    return bytes(read)
