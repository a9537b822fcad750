"""The server before Ollama on an instance: it tells its stage and hears the proxy.

Caddy, as a ``Caddyfile`` of ``cloud-init/`` sets it up: nothing without the token of
the launch.
"""

import asyncio
from dataclasses import dataclass

import aiohttp

from ollama_proxy.backend import Upstream
from ollama_proxy.errors import TransientError
from ollama_proxy.link import connection_options, credentials, is_foreign

READY = "ready"
FAILED = "failed:"
REASONS = frozenset({"driver", "disk"})
"""Steps of a boot whose failure is the reason of an `Observation`, by this name."""
_TIMEOUT_S = 5.0
_STAGE_BYTES = 200


@dataclass(frozen=True, slots=True)
class Sight:
    """How far a guard says that its boot is, or why that is not known."""

    stage: str | None
    problem: str = ""


class Guard:
    """Speaks to the guards of instances, each over its own link."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def look(self, upstream: Upstream) -> Sight:
        """Return how far the boot is; a platform's gateway may answer first."""
        try:
            status, said = await self._ask(upstream, "GET", "/-/stage")
        except TransientError as error:
            return Sight(None, str(error))
        if status == 200:  # noqa: PLR2004
            return Sight(said)
        return Sight(None, f"the instance's address answers {status}")

    async def renew(self, upstream: Upstream) -> None:
        """Put off the instance's dead-man's switch."""
        status, _ = await self._ask(upstream, "POST", "/-/heartbeat")
        if status != 204:  # noqa: PLR2004
            raise TransientError(f"the instance took a heartbeat with status {status}")

    async def _ask(self, upstream: Upstream, method: str, path: str) -> tuple[int, str]:
        if self._session is None:
            # A kept connection to an instance that slept is dead, and nobody says so.
            connector = aiohttp.TCPConnector(force_close=True)
            self._session = aiohttp.ClientSession(connector=connector)
        request = self._session.request(
            method,
            upstream.url + path,
            headers=credentials(upstream.link),
            allow_redirects=False,
            **connection_options(upstream.link),
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S), request as response:
                if is_foreign(upstream.link, response.headers):
                    message = f"the instance's address answers {response.status}"
                    raise TransientError(message)
                said = await response.content.read(_STAGE_BYTES)
                return response.status, said.decode("utf-8", "replace").strip()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            said_error = str(error) or type(error).__name__
            message = f"the instance does not answer {path}: {said_error}"
            raise TransientError(message) from error
