"""Read the small bodies of orders: bounded in bytes and in time."""

import asyncio
from typing import Final

from aiohttp import web

READ_S: Final = 10.0
"""How long a body may take to arrive."""


async def read_small(request: web.Request, most: int) -> bytes | None:
    """Return a body of up to ``most`` bytes; None if it is longer.

    Raises `TimeoutError` after `READ_S`.
    """
    body = b""
    async with asyncio.timeout(READ_S):
        while not request.content.at_eof():
            body += await request.content.readany()
            if len(body) > most:
                return None
    return body
