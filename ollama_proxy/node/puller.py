"""Pull the models that the hub wants on this node: one at a time, with pauses."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.base.retry import GrowingPause
from ollama_proxy.base.tasks import cancel_and_wait, start_task
from ollama_proxy.core.nodes.wanted import RESERVE
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.ollama.pull_progress import ProgressLine, read_progress
from ollama_proxy.node.hub_answer import on_one_line
from ollama_proxy.node.local_ollama import LocalOllama
from ollama_proxy.node.ready_body import ollama_request
from ollama_proxy.node.workload import Workload
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.endpoint import Upstream

_FIRST_PAUSE_S = 60.0
_LONGEST_PAUSE_S = 3600.0
_SILENCE_S = 900.0
_GIB = 1 << 30
_LOOK_S = 5.0
_MOST_LAYERS = 256
_LONGEST_LINE = 64 * 1024
_OK = 200


@dataclass(slots=True)
class Progress:
    """Counts the bytes of a model that is pulled, by layer."""

    name: str
    layers: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, line: ProgressLine) -> bool:
        """Note how far a layer is; return whether its size was not known."""
        _, before = self.layers.get(line.digest, (0.0, 0.0))
        if line.total > 0 and (before or len(self.layers) < _MOST_LAYERS):
            self.layers[line.digest] = (min(line.completed, line.total), line.total)
            return line.total != before
        return False

    @property
    def left(self) -> float:
        """Return how many bytes of the layers known so far are still to come."""
        return sum(total - completed for completed, total in self.layers.values())

    def shown(self) -> dict[str, Any]:
        """Return it as a beat has it; sizes in bytes, of the layers known so far."""
        completed, total = (
            sum(int(layer[place]) for layer in self.layers.values()) for place in (0, 1)
        )
        return {"name": self.name, "completed": completed, "total": total}


class Puller:
    """Pulls wanted models one at a time, unless this node drains.

    A pull that fails is tried again after 1 min, then 2 and so on, at most an hour; it
    goes on where it stopped, since Ollama keeps the parts. One that is wanted no more,
    or in a node that begins to drain, is broken off. ``on_pulled`` is called after each
    pull that succeeds. ``silence_s``: how long Ollama may report nothing. ``free``
    returns the free bytes for models, None if unknown: 10 GiB of them stay free,
    whatever the hub knows of a model's size.
    """

    def __init__(
        self,
        client: UpstreamClient,
        ollama: LocalOllama,
        workload: Workload,
        upstream: Upstream,
        *,
        clock: Clock,
        rng: random.Random,
        on_pulled: Callable[[], None],
        free: Callable[[], Awaitable[int | None]],
        silence_s: float = _SILENCE_S,
    ) -> None:
        self._client, self._ollama, self._workload = client, ollama, workload
        self._upstream = upstream
        self._clock, self._on_pulled, self._free = clock, on_pulled, free
        self._pause = GrowingPause(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, rng=rng)
        self._silence_s = silence_s
        self._wanted: Sequence[str] = ()
        self._failures: dict[str, tuple[int, float]] = {}
        self._progress: Progress | None = None
        self._pull: asyncio.Task[str] | None = None
        self._changed = asyncio.Event()
        self._log = structlog.get_logger()

    def want(self, names: Sequence[str]) -> None:
        """Take in what the hub wants now; a pull of anything else ends."""
        self._wanted, wanted = names, set(names)
        self._failures = {
            name: failure for name, failure in self._failures.items() if name in wanted
        }
        progress, pull = self._progress, self._pull
        if progress is not None and pull is not None and not self._is_due(progress):
            pull.cancel()
        self._changed.set()

    def _is_due(self, progress: Progress) -> bool:
        return progress.name in self._wanted and not self._workload.is_draining

    @property
    def pulling(self) -> dict[str, Any] | None:
        """Return what is pulled now, and how far it is."""
        return self._progress.shown() if self._progress is not None else None

    async def run(self) -> None:
        """Pull until it is cancelled."""
        while True:
            name = self._next()
            if name is not None:
                await self._see_to(name)
                continue
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._changed.wait()

    def _next(self) -> str | None:
        """Return what to pull now; None if there is nothing."""
        if self._workload.is_draining or self._ollama.state.fault:
            return None
        here = {one.full_name for one in self._ollama.state.models}
        now = self._clock.now()
        for name in self._wanted:
            _, due = self._failures.get(name, (0, now))
            if full_model_name(name) not in here and due <= now:
                return name
        return None

    async def _see_to(self, name: str) -> None:
        """Pull a model, and note how that ends."""
        progress = self._progress = Progress(name)
        self._log.info(log.MODEL_PULL, model=name, reason="begun: the hub wants it")
        pull = self._pull = start_task(self._trouble(progress), name="pull")
        try:
            await asyncio.wait({pull})
            is_done = self._note_end(name, pull)
        finally:
            self._progress = self._pull = None
            await cancel_and_wait(pull)
        if is_done:
            await self._ollama.look()
            self._on_pulled()

    def _note_end(self, name: str, pull: asyncio.Task[str]) -> bool:
        """Note how a pull has ended; return whether the model is there now."""
        if pull.cancelled():
            self._log.info(log.MODEL_PULL, model=name, reason="wanted no more")
            return False
        if trouble := pull.result():
            self._note_failure(name, trouble)
            return False
        self._failures.pop(name, None)
        self._log.info(log.MODEL_PULL, model=name, reason="done")
        return True

    async def _trouble(self, progress: Progress) -> str:
        """Pull a model; return why that failed, "" if it did not."""
        try:
            await self._pulled(progress)
        except TimeoutError:
            return f"Ollama reported nothing for {self._silence_s:g} s"
        except (UpstreamError, InstanceLostError, _PullError) as error:
            return str(error)
        return ""

    def _note_failure(self, name: str, reason: str) -> None:
        tries = self._failures.get(name, (0, 0.0))[0] + 1
        pause_s = self._pause.after(tries)
        self._failures[name] = (tries, self._clock.now() + pause_s)
        words = f"{on_one_line(reason)}; tried again in {pause_s:.0f} s"
        self._log.warning(log.MODEL_PULL, model=name, reason=words)

    async def _pulled(self, progress: Progress) -> None:
        """Have Ollama pull a model. Raises an error if it does not."""
        body = msgspec.json.encode({"model": progress.name, "stream": True})
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._silence_s) as limit:
            answer = await self._client.ask(
                ollama_request("POST", "/api/pull", body), self._upstream
            )
            async with answer:
                rest, last = b"", ProgressLine()
                async for chunk in answer.chunks():
                    limit.reschedule(loop.time() + self._silence_s)
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        last = _checked(line)
                        if progress.take(last):
                            await self._check_room(progress)
                    if len(rest) > _LONGEST_LINE:
                        raise _PullError("Ollama does not answer as Ollama does")
                last = _checked(rest) if rest else last
        if answer.status != _OK or last.status != "success":
            raise _PullError(f"Ollama answered {answer.status} {last.status!r}")

    async def _check_room(self, progress: Progress) -> None:
        """Raise `_PullError` for a model that does not fit."""
        free = await self._free()
        if free is not None and progress.left > free - RESERVE:
            raise _PullError(
                f"{progress.left / _GIB:.1f} GiB are still to come, and of the"
                f" {free / _GIB:.1f} GiB that are free {RESERVE / _GIB:.0f} stay so"
            )


class _PullError(Exception):
    """Reports that Ollama does not pull a model, with its reason."""


def _checked(line: bytes) -> ProgressLine:
    """Return a line of progress. Raises `_PullError` for one with an error."""
    read = read_progress(line)
    if read.error:
        raise _PullError(read.error)
    return read
