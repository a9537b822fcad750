"""Check whether an instance can serve, and bring it there.

The levels, in order: the port accepts connections → ``/api/version`` → the wanted
models are present (the proxy pulls them, so that progress shows) → the model is loaded
by the proxy's own request, which no client can abort → ready.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol

import aiohttp
from tenacity import AsyncRetrying, retry_if_result

from ollama_proxy.base.retry import GrowingPause, Sleep
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.lifecycle.record import Progress, Stage
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.core.ollama.load_wish import LoadWishes
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.fleet.adaptive_timeout import ProbeTimeout
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.connect_faults import ConnectFault, of_answer, of_error, of_loop
from ollama_proxy.fleet.gpu_use import GpuCheck, GpuLook
from ollama_proxy.fleet.instance_client import InstanceClient
from ollama_proxy.fleet.model_load import ModelLoader
from ollama_proxy.fleet.preload import Preloader
from ollama_proxy.fleet.probe_reply import (
    PreparationError,
    listed_models,
    text_field,
)
from ollama_proxy.fleet.restored_models import RestoredModels
from ollama_proxy.upstream.loop_mark import LoopMark

__all__ = ["HttpProbe", "PreparationError", "Probe"]

_SHOWN_MODELS = 50


class Probe(Protocol):
    """Asks an Ollama server what the controller needs to know."""

    async def alive(self, upstream: Upstream) -> bool:
        """Tell whether the server answers now."""

    async def look(self, upstream: Upstream) -> ConnectFault | None:
        """Return why the server does not answer now; None if it does."""

    def prepare(
        self, upstream: Upstream, wanted: Sequence[str], model: str | None
    ) -> AsyncGenerator[Progress, None]:
        """Go through the levels and report each; return when the instance is ready.

        ``wanted`` models are pulled if missing. One model is loaded: the one clients
        wait for if it is present, or the first of ``wanted``, or else ``model`` if it
        is present. Raises `PreparationError`.
        """

    async def contents(self, upstream: Upstream) -> Snapshot:
        """Return the server's lists and descriptions of models."""


class HttpProbe:
    """Speaks Ollama's API on the proxy's own behalf."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        restored: RestoredModels | None = None,
        wishes: LoadWishes | None = None,
        mark: LoopMark | None = None,
        gpu: GpuLook | None = None,
        timing: Timing = STANDARD,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._client = InstanceClient(session, mark, timing, sleep)
        self._gpu = gpu if gpu is not None else GpuLook(GpuCheck.OFF)
        self._wishes = wishes if wishes is not None else LoadWishes()
        self._restored = restored
        self._preloader = Preloader(self._client, restored, self.alive, timing, sleep)
        self._loader = ModelLoader(self._client, self._wishes, self._gpu, timing)
        self._timeout = ProbeTimeout()
        self._timing = timing
        self._sleep = sleep

    async def alive(self, upstream: Upstream) -> bool:
        """Tell whether ``/api/version`` answers within the scaled time-out."""
        return await self.look(upstream) is None

    async def look(self, upstream: Upstream) -> ConnectFault | None:
        """Return why ``/api/version`` does not answer within the scaled time-out."""
        version = await self._version(upstream)
        return version if isinstance(version, ConnectFault) else None

    async def _version(self, upstream: Upstream) -> str | ConnectFault:
        """Return the version, or why there is no answer that can be read."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(self._timeout.seconds):
                reply = await self._client.get(upstream, "/api/version")
        except TimeoutError as error:
            self._timeout.missed()
            return of_error(upstream, error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return of_error(upstream, error)
        except PreparationError as error:
            return ConnectFault(error.fault.message, passes=False)
        version = text_field(reply.body, "version") if reply.status == 200 else None  # noqa: PLR2004
        if self._client.is_back(reply):
            return of_loop(upstream)
        if version is None:
            return of_answer(upstream, reply.status, reply.headers, reply.body)
        self._timeout.answered(loop.time() - begun)
        return version

    async def prepare(
        self, upstream: Upstream, wanted: Sequence[str], model: str | None
    ) -> AsyncGenerator[Progress, None]:
        """Go through the levels, telling each."""
        self._gpu.forget()
        yield Progress(Stage.CONNECTING)
        async for progress in self._connect(upstream):
            yield progress
        if self._restored is not None:
            wanted = self._restored.without_deleted(wanted)
        async for progress in self._preloader.fill(upstream, wanted):
            yield progress
        async for progress in self._loader.load_one(upstream, wanted, model):
            yield progress

    async def _connect(self, upstream: Upstream) -> AsyncIterator[Progress]:
        """Ask until the instance answers; tell after each try why it did not."""
        # No `stop`: the start time-out in the record ends the launch.
        repeated = AsyncRetrying(
            retry=retry_if_result(_is_fault),
            wait=GrowingPause(
                self._timing.connect_pause_s, self._timing.connect_pause_max_s, 1.5
            ),
            sleep=self._sleep,
            reraise=True,
        )
        async for attempt in repeated:
            answer = await self._version(upstream)
            attempt.retry_state.set_result(answer)
            if isinstance(answer, ConnectFault):
                yield Progress(
                    Stage.CONNECTING,
                    problem=answer.message,
                    needs_person=not answer.passes,
                )

    async def contents(self, upstream: Upstream) -> Snapshot:
        """Ask for tags and version, and show for each model."""
        tags = await self._client.request_ok(upstream, "GET", "/api/tags", None)
        version = await self._version(upstream)
        shows: dict[str, bytes] = {}
        for model in listed_models(tags.body)[:_SHOWN_MODELS]:
            reply = await self._client.request(
                upstream, "POST", "/api/show", {"model": model.name}
            )
            if reply.status == 200:  # noqa: PLR2004
                shows[full_model_name(model.name)] = reply.body
        known = "" if isinstance(version, ConnectFault) else version
        return Snapshot(tags.body, known, shows)


def _is_fault(answer: object) -> bool:
    return isinstance(answer, ConnectFault)
