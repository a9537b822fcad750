"""Call a cloud's JSON API: no repeats, and failures that have a name."""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.foreign_words import why_unanswered, words_of
from ollama_proxy.backends.retry_after import retry_after_s
from ollama_proxy.backends.way_out import ADVICE, tls, web_proxy
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    OutcomeUnknownError,
    RateLimitError,
    TransientError,
)
from ollama_proxy.core.ollama.loose_json import UNREADABLE

_EXPLAINED = frozenset({401, 402, 403, 404, 409, 412, 422, 429})
"""Statuses that each cloud explains itself, if the response is the API's own."""


Named = Callable[[int, str, object], BackendError]
"""Makes an error from status, message, and JSON body (None if it is none)."""


def unanswered(*, reads: bool, said: str) -> BackendError:
    """Return the error of a call that may have acted, if it was one to act."""
    return TransientError(said) if reads else OutcomeUnknownError(said)


class RestClient:
    """Calls one API at ``url`` with a bearer token.

    ``clock``: compared with a date in ``Retry-After`` if the response has no ``Date``.
    ``setting``: where ``url`` is set, named in errors if the server is not the API.
    """

    def __init__(
        self,
        url: str,
        token: str,
        clock: Clock | None = None,
        *,
        setting: str = "its URL",
        timing: CloudTiming = STANDARD,
    ) -> None:
        self._url = url
        self._timeout_s = timing.call_s
        self._setting = setting
        self._clock = clock
        self._token = token
        self._session: aiohttp.ClientSession | None = None
        self._web_proxy: str | None = None

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        named: Named,
        *,
        query: Mapping[str, str | int] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Return the decoded response of one call; None if it has no body.

        Raises `RateLimitError` for 429, the error of ``named`` for any other status but
        2xx, and `TransientError` or `OutcomeUnknownError` if there is no response.
        """
        reads = method == "GET"
        told = f"{method} {path}"
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                status, raw, told_by = await self._exchange(
                    method, path, query, body, headers
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._broken(told, error, reads=reads) from error
        answer, is_json = _decoded(raw)
        if not 200 <= status < 300:  # noqa: PLR2004
            said = f"{told} got {status}: {words_of(raw, answer if is_json else None)}"
            if status not in _EXPLAINED or not is_json:
                said = f"{said}; {self._advice}"
            if status == 429:  # noqa: PLR2004
                raise self._limited(told_by, answer if is_json else None, said)
            raise named(status, said, answer if is_json else None)
        if not is_json:
            said = f"{told} got an answer that can't be read; {self._advice}"
            raise unanswered(reads=reads, said=said)
        return answer

    async def text(
        self,
        path: str,
        named: Named,
        *,
        query: Mapping[str, str | int] | None = None,
        most: int,
    ) -> str:
        """Return at most ``most`` bytes of the response to a GET, as text.

        Raises as `call` does.
        """
        told = f"GET {path}"
        try:
            async with asyncio.timeout(self._timeout_s):
                status, raw, told_by = await self._exchange(
                    "GET", path, query, None, None, most
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._broken(told, error, reads=True) from error
        if 200 <= status < 300:  # noqa: PLR2004
            return raw.decode("utf-8", "replace")
        answer, is_json = _decoded(raw)
        said = f"{told} got {status}: {words_of(raw, answer if is_json else None)}"
        if status == 429:  # noqa: PLR2004
            raise self._limited(told_by, answer if is_json else None, said)
        raise named(status, said, answer if is_json else None)

    @property
    def _host(self) -> str:
        return urlsplit(self._url).netloc.rpartition("@")[2]

    @property
    def _advice(self) -> str:
        return f"{self._host} was asked: try again later, or check {self._setting}"

    def _broken(self, told: str, error: Exception, *, reads: bool) -> BackendError:
        """Return the error of a call without a response.

        Only one that may have been received, and does not only read, has an unknown
        outcome.
        """
        match error:
            case aiohttp.ClientHttpProxyError():
                said = f"the proxy of this network answered {error.status}"
                said = f"{said} {error.message}; see HTTPS_PROXY"
                return TransientError(f"{told}: {said}")
            case aiohttp.ClientProxyConnectionError():
                said = f"the proxy of this network can't be reached: {error}"
                return TransientError(f"{told}: {said}; see HTTPS_PROXY")
            case aiohttp.ClientConnectorCertificateError():
                said = f"{told}: the certificate of {self._host} is not trusted"
                return TransientError(f"{said}; {ADVICE}")
            case aiohttp.ClientConnectorError():
                return TransientError(self._unreached(told, error))
            case _:
                return unanswered(reads=reads, said=self._unreached(told, error))

    def _unreached(self, told: str, error: BaseException) -> str:
        return (
            f"{told}: {self._host}: {why_unanswered(error)}; see to this machine's"
            f" network, or check {self._setting}"
        )

    def _limited(
        self, headers: Mapping[str, str], body: object, said: str
    ) -> RateLimitError:
        wall = self._clock.wall() if self._clock is not None else math.inf
        wait_s = retry_after_s(headers, body, wall)
        limits = f"{self._host} limits how often this token may call"
        return RateLimitError(
            f"{said}; {limits}, and is asked again after a while; see {self._setting}",
            retry_after_s=wait_s,
        )

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None,
        body: object,
        headers: Mapping[str, str] | None,
        most: int | None = None,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        if self._session is None:
            self._web_proxy = web_proxy(self._url)
            # Over http no certificate is checked; loading all authorities takes 80 ms.
            is_plain = urlsplit(self._url).scheme == "http"
            connector = aiohttp.TCPConnector(ssl=True if is_plain else tls())
            self._session = aiohttp.ClientSession(connector=connector)
        request = self._session.request(
            method,
            self._url + path,
            params=query,
            json=body,
            headers={"Authorization": f"Bearer {self._token}", **(headers or {})},
            allow_redirects=False,
            proxy=self._web_proxy,
        )
        async with request as response:
            if most is None:
                return response.status, await response.read(), response.headers
            try:
                raw = await response.content.readexactly(most)
            except asyncio.IncompleteReadError as error:
                raw = error.partial
            return response.status, raw, response.headers


def _decoded(raw: bytes) -> tuple[Any, bool]:
    """Return a body, and whether it is JSON; none at all is good as JSON, too."""
    if not raw.strip():
        return None, True
    try:
        return msgspec.json.decode(raw), True
    except UNREADABLE:
        return None, False
