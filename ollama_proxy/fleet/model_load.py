"""Load one model of an instance into memory, and look whether the GPU has it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.lifecycle.record import Fault, Progress, Stage
from ollama_proxy.core.ollama.load_wish import LoadWish, LoadWishes, loads_to_try
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.gpu_use import GpuLook, read_gpu_use
from ollama_proxy.fleet.instance_client import InstanceClient
from ollama_proxy.fleet.probe_reply import PreparationError, listed_models, text_field


class ModelLoader:
    """Loads a model by the proxy's own request, which no client can abort.

    ``wishes``: which models clients wait for, and with which load options.
    """

    def __init__(
        self,
        client: InstanceClient,
        wishes: LoadWishes,
        gpu: GpuLook,
        timing: Timing = STANDARD,
    ) -> None:
        self._client = client
        self._wishes = wishes
        self._gpu = gpu
        self._timing = timing
        self._log = structlog.get_logger()

    async def load_one(
        self, upstream: Upstream, wanted: Sequence[str], model: str | None
    ) -> AsyncIterator[Progress]:
        """Load one model; only that a configured one can't be loaded is a fault."""
        first = wanted[0] if wanted else None
        newest: LoadWish | None = None
        if self._wishes or (model and not wanted):
            present = await self._client.present(upstream)
            newest = self._wishes.newest(present)
            if newest is None and model and not wanted:
                is_there = full_model_name(model) in present
                newest = LoadWish(model) if is_there else None
        tries = loads_to_try(newest, first)
        for left, wish in zip(reversed(range(len(tries))), tries, strict=True):
            yield Progress(Stage.LOADING, detail=wish.model)
            try:
                is_ours = await self._load(upstream, wish)
            except PreparationError as error:
                if wanted and not left:
                    raise
                self._log.warning(log.MODEL_NOT_LOADED, error=str(error))
            else:
                await self._look_at_gpu(upstream, wish, is_ours=is_ours)
                return

    async def _look_at_gpu(
        self, upstream: Upstream, wish: LoadWish, *, is_ours: bool
    ) -> None:
        """Check whether the loaded model is on the GPU; an unknown answer is no fault.

        Raises `PreparationError` if it is not and the settings say that the launch
        fails then.
        """
        if not self._gpu.is_on:
            return
        use, is_meant = None, wish.chooses_gpu
        with contextlib.suppress(PreparationError, TimeoutError):
            async with asyncio.timeout(self._timing.gpu_look_s):
                reply = await self._client.request(upstream, "GET", "/api/ps", None)
                if reply.status == 200:  # noqa: PLR2004
                    use = read_gpu_use(reply.body, wish.model)
                if use is not None and not is_meant and use.size_vram < use.size:
                    is_meant = await self._chooses_gpu(upstream, wish.model)
        fault = self._gpu.take(use, is_meant=is_meant, is_ours=is_ours)
        if fault is not None:
            raise PreparationError(fault)

    async def _chooses_gpu(self, upstream: Upstream, model: str) -> bool:
        """Tell whether a model's own parameters say how much of it is on the GPU."""
        reply = await self._client.request(
            upstream, "POST", "/api/show", {"model": model}
        )
        parameters = text_field(reply.body, "parameters") or ""
        return re.search(r"(?m)^num_gpu\s", parameters) is not None

    async def _load(self, upstream: Upstream, wish: LoadWish) -> bool:
        """Load a model by an empty request; an embedding model by an empty embedding.

        Return False if it was loaded already.
        """
        if wish.is_plain and await self._runs(upstream, wish.model):
            return False
        path = "/api/embed" if wish.embeds else "/api/generate"
        reply = await self._client.request(upstream, "POST", path, wish.body())
        if reply.status == 400 and "does not support generate" in reply.error():  # noqa: PLR2004
            body = replace(wish, embeds=True).body()
            reply = await self._client.request(upstream, "POST", "/api/embed", body)
        if reply.status != 200:  # noqa: PLR2004
            message = f"the model {wish.model!r} could not be loaded: {reply.error()}"
            raise PreparationError(Fault("load", message))
        return True

    async def _runs(self, upstream: Upstream, model: str) -> bool:
        """Tell whether a model is in memory already, with whichever load options.

        It may be, on an adopted instance. A load with default options would make Ollama
        load it again.
        """
        try:
            reply = await self._client.request(upstream, "GET", "/api/ps", None)
            loaded = listed_models(reply.body) if reply.status == 200 else []  # noqa: PLR2004
        except PreparationError:
            return False
        return full_model_name(model) in {full_model_name(one.name) for one in loaded}
