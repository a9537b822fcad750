"""Ask an instance's guard how long each stage of its boot took: ``GET /-/stages``."""

import asyncio

import aiohttp
import structlog

from ollama_proxy.base import log
from ollama_proxy.core.lifecycle.boot_stages import StageSpan, read_spans
from ollama_proxy.upstream.endpoint import (
    Upstream,
    connection_options,
    credentials,
    is_foreign,
)

_TIMEOUT_S = 5.0
_MOST_BYTES = 8 * 1024


async def guest_spans(upstream: Upstream) -> tuple[StageSpan, ...]:
    """Return the stages of a boot that is over; none if the guard does not tell.

    It is asked once per launch, and never keeps one from being ready for longer than
    five seconds.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S), aiohttp.ClientSession() as session:
            said = await _ask(session, upstream)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        told = str(error) or type(error).__name__
        structlog.get_logger().debug(log.STAGES_UNKNOWN, reason=told)
        return ()
    return read_spans(said)


async def _ask(session: aiohttp.ClientSession, upstream: Upstream) -> str:
    async with session.request(
        "GET",
        f"{upstream.url}/-/stages",
        headers=credentials(upstream.link),
        allow_redirects=False,
        **connection_options(upstream.link),
    ) as response:
        if response.status != 200 or is_foreign(upstream.link, response.headers):  # noqa: PLR2004
            return ""
        said = bytearray()
        async for data in response.content.iter_any():
            said += data
            if len(said) > _MOST_BYTES:
                break
        return said[:_MOST_BYTES].decode("utf-8", "replace")
