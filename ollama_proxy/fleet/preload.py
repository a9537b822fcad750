"""Give an instance the models that it lacks: pull, copy and remove them."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import aiohttp
from tenacity import AsyncRetrying
from tenacity.asyncio import retry_if_exception

from ollama_proxy.base.retry import Sleep
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.lifecycle.record import Fault, Progress, Stage
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.ollama.pull_progress import read_progress
from ollama_proxy.core.restore_plan import Copying, Pulling, Removing, RestoreStep
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.instance_client import InstanceClient, broken_off
from ollama_proxy.fleet.probe_reply import PreparationError, check_own, read_lines
from ollama_proxy.fleet.restored_models import RestoredModels

_NO_MODEL = re.compile(
    r"^pull model manifest: (file does not exist|.*\bmanifest unknown)"
    r"|^invalid model name"
)
"""Ollama v0.33's message for a name that the registry does not have
(``server/images.go``, ``PullModel``)."""


class Preloader:
    """Brings models onto the disk of an instance, so that progress shows.

    ``is_alive``: tells whether an instance answers now. ``restored``: the models that
    clients had on the instance before.
    """

    def __init__(
        self,
        client: InstanceClient,
        restored: RestoredModels | None,
        is_alive: Callable[[Upstream], Awaitable[bool]],
        timing: Timing = STANDARD,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._client = client
        self._restored = restored
        self._is_alive = is_alive
        self._timing = timing
        self._sleep = sleep

    async def fill(
        self, upstream: Upstream, wanted: Sequence[str]
    ) -> AsyncIterator[Progress]:
        """Pull missing ``wanted`` models, then restore the models of clients.

        The progress is the fraction of all pulls together, and never falls. If a model
        of a client can't be restored the launch goes on. Raises `PreparationError`.
        """
        present = await self._client.present(upstream)
        steps: list[RestoreStep] = [
            Pulling(name, insecure=False)
            for name in wanted
            if full_model_name(name) not in present
        ]
        needed = len(steps)
        if self._restored is not None:
            coming = present | {full_model_name(name) for name in wanted}
            steps += self._restored.steps(coming)
        count = sum(isinstance(step, Pulling) for step in steps)
        furthest, done = 0.0, 0
        failed: dict[str, str] = {}
        for number, step in enumerate(steps):
            is_needed = number < needed
            moving = _Movement(math.inf if is_needed else self._timing.restore_stall_s)
            try:
                async for progress in self._take(upstream, step, failed):
                    moving.check(progress)
                    if progress.fraction is not None:
                        fraction = round((done + progress.fraction) / count, 3)
                        furthest = max(furthest, fraction)
                    yield replace(progress, fraction=furthest)
            except PreparationError as error:  # a client's model: launch without it
                is_lost = error.is_cut and not await self._is_alive(upstream)
                if is_needed or is_lost:
                    raise
                failed[step.name] = error.fault.message
            done += isinstance(step, Pulling)
        if self._restored is not None:
            self._restored.settle(await self._client.present(upstream), failed)

    async def _pull(
        self, upstream: Upstream, model: str, *, insecure: bool
    ) -> AsyncIterator[Progress]:
        """Pull a model and report its progress; the stream must end in ``success``.

        A gateway may cut every long response. As long as the pull makes progress it is
        requested again, and the server resumes where it stopped.
        """
        yield Progress(Stage.PULLING, 0.0, model)
        last: Progress | None = None
        cut_at: Progress | None = None

        async def may_go_on(error: BaseException) -> bool:
            nonlocal last, cut_at
            got_further = last is not None and last != cut_at
            last, cut_at = None, last
            is_cut = isinstance(error, PreparationError) and error.is_cut
            return is_cut and got_further and await self._is_alive(upstream)

        repeated = AsyncRetrying(
            retry=retry_if_exception(may_go_on), sleep=self._sleep, reraise=True
        )
        async for attempt in repeated:
            with attempt:
                async for last in self._pull_once(upstream, model, insecure=insecure):
                    yield last

    async def _pull_once(
        self, upstream: Upstream, model: str, *, insecure: bool
    ) -> AsyncIterator[Progress]:
        status = ""
        body: dict[str, Any] = {"model": model, "stream": True}
        if insecure:
            body["insecure"] = True
        request = self._client.open(upstream, "POST", "/api/pull", body)
        try:
            async with request as response:
                check_own(response, upstream)
                async for line in read_lines(response, "/api/pull"):
                    pulled = read_progress(line)
                    status = pulled.status or status
                    if pulled.error:
                        raise PreparationError(_pull_fault(model, pulled.error))
                    moved = int(pulled.completed)
                    yield Progress(Stage.PULLING, pulled.fraction, model, moved)
        except (aiohttp.ClientError, OSError) as error:
            raise PreparationError(broken_off("pulling", model, error)) from error
        if status != "success":
            raise PreparationError(_pull_fault(model, f"it ended with {status!r}"))

    async def _take(
        self, upstream: Upstream, step: RestoreStep, failed: Mapping[str, str]
    ) -> AsyncIterator[Progress]:
        match step:
            case Pulling(name, insecure):
                async for progress in self._pull(upstream, name, insecure=insecure):
                    yield progress
            case Copying(source, name) if source not in failed:
                names = {"source": source, "destination": name}
                await self._client.request_ok(upstream, "POST", "/api/copy", names)
            case Removing(name) if name not in failed:
                await self._client.request_ok(
                    upstream, "DELETE", "/api/delete", {"model": name}
                )


class _Movement:
    """Detects a pull without progress for ``limit_s`` seconds."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._last: Progress | None = None
        self._at = asyncio.get_running_loop().time()

    def check(self, progress: Progress) -> None:
        """Take in a line of progress; raises `PreparationError` if nothing moves."""
        now = asyncio.get_running_loop().time()
        if progress != self._last:
            self._last, self._at = progress, now
        elif now - self._at > self._limit_s:
            message = f"it got no further for {self._limit_s:.0f} s"
            raise PreparationError(_pull_fault(progress.detail, message))


def _pull_fault(model: str, error: str) -> Fault:
    """Return the fault of a pull; that the registry has no such model is final."""
    message = f"the model {model!r} could not be pulled: {error}"
    reason = "disk" if "no space left on device" in error else "pull"
    return Fault(reason, message, final=_NO_MODEL.search(error) is not None)
