"""The server before Ollama on an instance: it tells its stage and hears the proxy.

Caddy, as ``cloud-init/exoscale/Caddyfile`` sets it up: TLS in the name of the
launch, nothing without the launch's token.
"""

import asyncio

import aiohttp

from ollama_proxy.backend import Upstream
from ollama_proxy.errors import TransientError
from ollama_proxy.link import connection_options, credentials

READY = "ready"
FAILED = "failed:"
_TIMEOUT_S = 5.0
_STAGE_BYTES = 200


class Guard:
    """Speaks to the guards of instances, each over its own link."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def stage(self, upstream: Upstream) -> str | None:
        """Return how far the boot is; None if the guard does not answer yet."""
        try:
            status, said = await self._ask(upstream, "GET", "/-/stage")
        except TransientError:
            return None
        return said if status == 200 else None  # noqa: PLR2004

    async def renew(self, upstream: Upstream) -> None:
        """Put off the instance's dead-man's switch."""
        status, _ = await self._ask(upstream, "POST", "/-/heartbeat")
        if status != 204:  # noqa: PLR2004
            raise TransientError(f"the instance took a heartbeat with status {status}")

    async def _ask(self, upstream: Upstream, method: str, path: str) -> tuple[int, str]:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        request = self._session.request(
            method,
            upstream.url + path,
            headers=credentials(upstream.link),
            **connection_options(upstream.link),
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S), request as response:
                said = await response.content.read(_STAGE_BYTES)
                return response.status, said.decode("utf-8", "replace").strip()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            said_error = str(error) or type(error).__name__
            message = f"the instance does not answer {path}: {said_error}"
            raise TransientError(message) from error
