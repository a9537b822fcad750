"""Ask an instance on the proxy's own behalf, over the instance's own link."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_fixed,
)

from ollama_proxy.base.retry import Sleep
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.http.compression import CLEAR
from ollama_proxy.core.lifecycle.record import Fault
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.connect_faults import of_loop
from ollama_proxy.fleet.probe_reply import (
    PreparationError,
    ProbeReply,
    listed_models,
    read_reply,
)
from ollama_proxy.upstream.endpoint import connection_options, credentials
from ollama_proxy.upstream.loop_mark import LoopMark

_TRIES = 5


class InstanceClient:
    """Speaks Ollama's API to instances. ``mark`` is a header that shows loops."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        mark: LoopMark | None = None,
        timing: Timing = STANDARD,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._session = session
        self._mark = mark
        self._timing = timing
        self._sleep = sleep

    def open(
        self, upstream: Upstream, method: str, path: str, body: dict[str, Any] | None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Begin a request over the link of the instance."""
        marked = self._mark.headers if self._mark is not None else {}
        return self._session.request(
            method,
            upstream.url + path,
            json=body,
            headers={**CLEAR, **marked, **credentials(upstream.link)},
            allow_redirects=False,
            auto_decompress=False,
            **connection_options(upstream.link),
        )

    async def get(self, upstream: Upstream, path: str) -> ProbeReply:
        """Ask once; raises what aiohttp raises."""
        return await self._ask(upstream, "GET", path, None)

    async def _ask(
        self, upstream: Upstream, method: str, path: str, body: dict[str, Any] | None
    ) -> ProbeReply:
        async with self.open(upstream, method, path, body) as response:
            return await read_reply(response, upstream, path)

    async def request(
        self, upstream: Upstream, method: str, path: str, body: dict[str, Any] | None
    ) -> ProbeReply:
        """Send a request, up to five times while a gateway breaks it off.

        Raises `PreparationError` if there is no response.
        """
        has_gateway = upstream.link is not None and upstream.link.is_marked
        repeated = AsyncRetrying(
            retry=retry_if_exception_type((aiohttp.ClientError, OSError)),
            stop=stop_after_attempt(_TRIES if has_gateway else 1),
            wait=wait_fixed(self._timing.gateway_pause_s),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            reply: ProbeReply = await repeated(self._ask, upstream, method, path, body)
        except (aiohttp.ClientError, OSError) as error:
            raise PreparationError(broken_off("asking", path, error)) from error
        return reply

    async def request_ok(
        self, upstream: Upstream, method: str, path: str, body: dict[str, Any] | None
    ) -> ProbeReply:
        """Ask as `request` does; raises `PreparationError` for any status but 200."""
        reply = await self.request(upstream, method, path, body)
        if reply.status != 200:  # noqa: PLR2004
            message = f"the instance answered {path} with {reply.error()}"
            if self.is_back(reply):
                message = of_loop(upstream).message
            raise PreparationError(Fault("probe", message))
        return reply

    async def present(self, upstream: Upstream) -> set[str]:
        """Return the full names of the models that the instance has on disk."""
        reply = await self.request_ok(upstream, "GET", "/api/tags", None)
        return {full_model_name(model.name) for model in listed_models(reply.body)}

    def is_back(self, reply: ProbeReply) -> bool:
        """Tell whether a request looped back to this proxy, which refused it."""
        mark = self._mark
        return mark is not None and mark.is_on(reply.status, reply.headers)


def broken_off(doing: str, what: str, error: Exception) -> Fault:
    """Return the fault of a request whose connection failed."""
    cause = getattr(error, "os_error", error)  # aiohttp's own words show a repr
    message = str(cause) or type(error).__name__
    message = f"the instance broke off while {doing} {what!r}: {message}"
    return Fault("lost", message)
