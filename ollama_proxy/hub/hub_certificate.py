"""Renew the certificate that the hub shows to its nodes, long before it ends."""

import asyncio
from typing import Final

import structlog

from ollama_proxy.base import log
from ollama_proxy.hub.authority import HubAuthority

EVERY_S: Final = 30 * 86_400.0
"""How often: it lasts 90 days, and each start makes another."""


async def renew_hub_certificate(
    authority: HubAuthority, every_s: float = EVERY_S
) -> None:
    """Renew it until this is cancelled; on a full disk, the former one stays."""
    while True:
        await asyncio.sleep(every_s)
        try:
            authority.renew_hub_certificate()
        except OSError as error:
            structlog.get_logger().warning(log.CERTIFICATE_KEPT, reason=str(error))
