"""Query the guard, a web server before Ollama on an instance, and send it heartbeats.

The guard is Caddy with a ``Caddyfile`` of ``cloud-init/``. It refuses requests without
the token of the launch.
"""

import asyncio
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
import structlog

from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.foreign_words import why_unanswered
from ollama_proxy.base import log
from ollama_proxy.base.errors import TransientError
from ollama_proxy.core.lifecycle.boot_stages import StageSpan, read_spans
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.connect_faults import refusal_of
from ollama_proxy.upstream.endpoint import (
    connection_options,
    credentials,
    is_gateway_response,
)

READY = "ready"
FAILED = "failed:"
REASONS = frozenset({"driver", "disk"})
"""Steps of a boot whose failure is the reason of an `Observation`, by this name."""
_DRIVER = re.compile(r"[A-Za-z0-9.+_-]{1,60}(?: [A-Za-z0-9.+_-]{1,60}){0,2}")
_STAGE_BYTES = 200
_REPORT_BYTES = 32 * 1024
"""How much of a report is read: four times what a guest may keep."""
_STAGES_BYTES = 8 * 1024
_LOG_BYTES = 8 * 1024
"""How much of a log is read, from its end."""


@dataclass(frozen=True, slots=True)
class BootStage:
    """Says how far a guard's boot is, or why that is unknown.

    ``needs_person``: the problem does not pass by itself. ``took_connection``:
    something accepted the connection, whether it was the guard or not.
    """

    stage: str | None
    problem: str = ""
    needs_person: bool = False
    took_connection: bool = True


class _RefusedError(TransientError):
    """Reports that the proxy's token is refused, until somebody mends it."""


class GuardClient:
    """Speaks to the guards of instances, each over its own link."""

    def __init__(self, timing: CloudTiming = STANDARD) -> None:
        self._timeout_s = timing.guard_s
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def look(self, upstream: Upstream) -> BootStage:
        """Return how far the boot is; a platform's gateway may answer first."""
        try:
            status, said = await self._ask(upstream, "GET", "/-/stage")
        except TransientError as error:
            refused = isinstance(error, _RefusedError)
            took_connection = refused or _took_connection(error)
            return BootStage(None, str(error), refused, took_connection)
        if status == 200:  # noqa: PLR2004
            return BootStage(said)
        return BootStage(None, f"the instance's address answers {status}")

    async def renew(self, upstream: Upstream) -> None:
        """Put off the instance's dead-man's switch."""
        status, _ = await self._ask(upstream, "POST", "/-/heartbeat")
        if status != 204:  # noqa: PLR2004
            raise TransientError(f"the instance took a heartbeat with status {status}")

    async def report(self, upstream: Upstream) -> bytes:
        """Return the last lines of the failed step, as the instance saved them.

        If the body is too long or does not end, return the part received in time.
        Raises `TransientError` if nothing is received, or the instance has saved no
        lines.
        """
        said = bytearray()
        try:
            await self._read(upstream, "/-/report", _REPORT_BYTES, into=said)
        except TransientError:
            if not said:
                raise
        return bytes(said)

    async def log_of(self, upstream: Upstream, step: str) -> bytes:
        """Return the end of a step's log so far, whether the step has ended or not.

        Raises `TransientError` if nothing is received, or the instance has no such log.
        """
        said = bytearray()
        path = f"/-/log/{quote(step, safe='')}"
        tail = {"Range": f"bytes=-{_LOG_BYTES}"}
        try:
            await self._read(upstream, path, _REPORT_BYTES, into=said, headers=tail)
        except TransientError:
            if not said:
                raise
        return bytes(said)

    async def spans(self, upstream: Upstream) -> tuple[StageSpan, ...]:
        """Return the stages of a boot that is over; none if the guard does not tell."""
        said = bytearray()
        try:
            await self._read(upstream, "/-/stages", _STAGES_BYTES, into=said)
        except TransientError as error:
            structlog.get_logger().debug(log.STAGES_UNKNOWN, reason=str(error))
            return ()
        return read_spans(said.decode("utf-8", "replace"))

    async def driver(self, upstream: Upstream) -> str:
        """Return branch and version of the GPU's driver; empty if unknown."""
        said = bytearray()
        try:
            await self._read(upstream, "/-/driver", _STAGE_BYTES, into=said)
        except TransientError as error:
            structlog.get_logger().debug(log.DRIVER_UNKNOWN, reason=str(error))
            return ""
        return read_driver(said)

    async def _read(
        self,
        upstream: Upstream,
        path: str,
        most: int,
        *,
        into: bytearray,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Read the first ``most`` bytes of a file on the instance.

        Raises `TransientError` if the file does not exist, or does not end in time;
        ``into`` has the bytes received so far.
        """
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._request(upstream, "GET", path, headers) as response,
            ):
                if response.status not in {200, 206}:  # 206: the requested range
                    message = f"the instance answers {path} with {response.status}"
                    raise TransientError(message)
                _check(upstream, response)
                while len(into) < most:
                    more = await response.content.read(most - len(into))
                    if not more:
                        break
                    into += more
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unanswered(path, error) from error

    async def _ask(self, upstream: Upstream, method: str, path: str) -> tuple[int, str]:
        request = self._request(upstream, method, path)
        try:
            async with asyncio.timeout(self._timeout_s), request as response:
                _check(upstream, response)
                said = await response.content.read(_STAGE_BYTES)
                return response.status, said.decode("utf-8", "replace").strip()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unanswered(path, error) from error

    def _request(
        self,
        upstream: Upstream,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None:
            # A reused connection to an instance that slept is dead, without a FIN or
            # RST.
            connector = aiohttp.TCPConnector(force_close=True)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session.request(
            method,
            upstream.url + path,
            headers={**credentials(upstream.link), **(headers or {})},
            allow_redirects=False,
            **connection_options(upstream.link),
        )


def read_driver(said: bytes | bytearray) -> str:
    """Return what a guest says of its driver, if it is in words of ASCII on a line."""
    found = _DRIVER.fullmatch(said.decode("utf-8", "replace").strip())
    return found[0] if found is not None else ""


def _check(upstream: Upstream, response: aiohttp.ClientResponse) -> None:
    """Raise `TransientError` for an answer that is not the instance's own."""
    if response.status in {401, 403}:
        whose = refusal_of(upstream)
        raise _RefusedError(
            f"the instance's address answers {response.status}: {whose}"
        )
    if is_gateway_response(upstream.link, response.headers):
        raise TransientError(f"the instance's address answers {response.status}")


def _took_connection(error: TransientError) -> bool:
    """Tell whether an instance that gave no answer can be reached all the same."""
    cause = error.__cause__
    return cause is None or isinstance(cause, aiohttp.ClientSSLError)


def _unanswered(path: str, error: Exception) -> TransientError:
    said = why_unanswered(error)
    return TransientError(f"the instance does not answer {path}: {said}")
