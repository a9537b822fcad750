"""Ask instances for something small on the proxy's own behalf, all at once."""

import asyncio
from typing import Final

import structlog
from multidict import CIMultiDict

from ollama_proxy.base import log
from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.core.http.compression import CLEAR, encoding_of
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.serving.shared_pulls import BufferedBody
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.request import PreparedRequest

_OK: Final = 200
_MOST_BYTES: Final = 16 * 1024 * 1024


async def read_of_all(
    relay: UpstreamClient, pool: Pool, path: str, *, limit_s: float
) -> list[bytes]:
    """Return what the ready instances of a pool answer to a GET.

    One that does not answer with 200 in time is left out. Nothing of it is use.
    """
    leases = pool.observe_all()
    try:
        asked = (_read(relay, lease, path, limit_s) for lease in leases)
        bodies = await asyncio.gather(*asked)
    finally:
        for lease in leases:
            lease.release()
    return [body for body in bodies if body is not None]


async def _read(
    relay: UpstreamClient, lease: Lease, path: str, limit_s: float
) -> bytes | None:
    to_send = PreparedRequest("GET", path, CIMultiDict(CLEAR), BufferedBody(b""))
    try:
        async with (
            lease.until_cut(limit_s),
            await relay.ask(to_send, lease.upstream) as answer,
        ):
            parts: list[bytes] = []
            size = 0
            async for data in answer.chunks():
                parts.append(data)
                size += len(data)
                if size > _MOST_BYTES:
                    raise UpstreamError(f"over {_MOST_BYTES} bytes", arrived=True)  # noqa: TRY301
            if answer.status != _OK or encoding_of(answer.headers):
                return None
            return b"".join(parts)
    except (UpstreamError, InstanceLostError, TimeoutError) as error:
        lease.check_now()
        structlog.get_logger().warning(
            log.LIST_MISSING,
            launch_id=lease.launch_id,
            path=path,
            error=str(error) or f"no answer within {limit_s:g} s",
        )
        return None
