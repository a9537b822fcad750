"""Renew the certificate of this node long before it ends."""

import asyncio
import random
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import structlog

from ollama_proxy.base import log
from ollama_proxy.base.retry import GrowingPause
from ollama_proxy.core.nodes.hub_routes import RENEW
from ollama_proxy.core.nodes.join_request import RenewAnswer, RenewRequest
from ollama_proxy.node.hub_calls import ask_hub
from ollama_proxy.node.hub_client import HubAwayError, HubRefusedError
from ollama_proxy.node.membership import Membership, write_membership

EVERY_S: Final = 7 * 86_400.0
"""How often: a certificate lasts 90 days. No date is looked at, as it may be wrong."""

_FIRST_PAUSE_S = 60.0
_LONGEST_PAUSE_S = 3600.0


class Renewal:
    """Asks for a new certificate at the start and every week.

    ``context``: what the node's server shows. ``every_s``: between two of them.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        folder: Path,
        membership: Membership,
        context: ssl.SSLContext,
        rng: random.Random,
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._session, self._url = session, f"{url}{RENEW}"
        self._folder, self._membership, self._context = folder, membership, context
        self._pause = GrowingPause(
            min(_FIRST_PAUSE_S, every_s), min(_LONGEST_PAUSE_S, every_s), rng=rng
        )
        self._every_s = every_s
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Renew until it is cancelled."""
        failed = 0
        while True:
            try:
                await self.renew()
            except (HubAwayError, HubRefusedError, OSError) as error:
                failed += 1
                if failed == 1:
                    self._log.warning(log.CERTIFICATE_KEPT, reason=str(error))
                await asyncio.sleep(self._pause.after(failed))
            else:
                failed = 0
                await asyncio.sleep(self._every_s)

    async def renew(self) -> None:
        """Ask for a certificate, keep it, and show it from now on.

        Raises `HubAwayError`, `HubRefusedError`, `OSError`.
        """
        asked = RenewRequest(self._membership.certificate_request)
        told = await ask_hub(self._session, self._url, msgspec.json.encode(asked))
        try:
            answer = msgspec.json.decode(told, type=RenewAnswer)
        except (ValueError, RecursionError) as error:
            raise HubRefusedError(f"it sends no certificate: {error}") from None
        renewed = replace(self._membership, certificate=answer.certificate)
        # A certificate that does not fit raises here, and the former one stays.
        renewed.show_certificate(self._folder, self._context)
        self._membership = renewed
        write_membership(self._folder, renewed)
        self._log.info(log.CERTIFICATE_RENEWED, node_id=renewed.node_id)
