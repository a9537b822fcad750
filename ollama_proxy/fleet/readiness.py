"""Ask an instance whether it can serve, and bring it there.

The levels, in order: the port answers → ``/api/version`` → the wanted models
are present (the proxy pulls them, so that progress shows) → the model is loaded
by the proxy's own request, which no client can abort → ready.
"""

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol

import aiohttp
import structlog

from ollama_proxy.base import log
from ollama_proxy.core.http.compression import CLEAR
from ollama_proxy.core.lifecycle.record import Fault, Progress, Stage
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.core.ollama.load_wish import LoadWish, LoadWishes, loads_to_try
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.ollama.pull_progress import read_progress
from ollama_proxy.core.restore_plan import Copying, Pulling, Removing, RestoreStep
from ollama_proxy.fleet.adaptive_timeout import ProbeTimeout
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.connect_faults import ConnectFault, of_answer, of_error, of_loop
from ollama_proxy.fleet.gpu_use import GpuCheck, GpuLook, read_gpu_use
from ollama_proxy.fleet.probe_reply import (
    PreparationError,
    ProbeReply,
    check_own,
    listed_models,
    read_lines,
    read_reply,
    text_field,
)
from ollama_proxy.fleet.restored_models import RestoredModels
from ollama_proxy.upstream.endpoint import connection_options, credentials
from ollama_proxy.upstream.loop_mark import LoopMark

__all__ = ["HttpProbe", "PreparationError", "Probe"]

_CONNECT_PAUSE_S = 0.1
_CONNECT_PAUSE_MAX_S = 2.0
_GPU_LOOK_S = 10.0
_SHOWN_MODELS = 50
_STICKY_STALL_S = 120.0
_TRIES = 5
_TRY_PAUSE_S = 1.0
_NO_MODEL = re.compile(
    r"^pull model manifest: (file does not exist|.*\bmanifest unknown)"
    r"|^invalid model name"
)
"""What Ollama v0.33 says of a name for which the registry has nothing
(``server/images.go``, ``PullModel``)."""


class Probe(Protocol):
    """What the controller needs to know of an Ollama server."""

    async def alive(self, upstream: Upstream) -> bool:
        """Tell whether the server answers now."""

    async def look(self, upstream: Upstream) -> ConnectFault | None:
        """Return why the server does not answer now; None if it does."""

    def prepare(
        self, upstream: Upstream, wanted: Sequence[str], model: str | None
    ) -> AsyncGenerator[Progress, None]:
        """Go through the levels, telling each; end when the instance is ready.

        ``wanted`` models are pulled if missing. One model is loaded: what is waited
        for if it is present, or the first of ``wanted``, or else ``model`` if that is
        present. Raises `PreparationError`.
        """

    async def contents(self, upstream: Upstream) -> Snapshot:
        """Return what the server says of its models."""


class HttpProbe:
    """Speaks Ollama's API on the proxy's own behalf."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        sticky: RestoredModels | None = None,
        wishes: LoadWishes | None = None,
        mark: LoopMark | None = None,
        gpu: GpuLook | None = None,
    ) -> None:
        self._session = session
        self._mark = mark
        self._gpu = gpu if gpu is not None else GpuLook(GpuCheck.OFF)
        self._wishes = wishes if wishes is not None else LoadWishes()
        self._sticky = sticky
        self._timeout = ProbeTimeout()
        self._log = structlog.get_logger()

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
                reply = await self._get(upstream, "/api/version")
        except TimeoutError as error:
            self._timeout.missed()
            return of_error(upstream, error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return of_error(upstream, error)
        except PreparationError as error:
            return ConnectFault(error.fault.message, passes=False)
        version = text_field(reply.body, "version") if reply.status == 200 else None  # noqa: PLR2004
        if self._is_back(reply):
            return of_loop(upstream)
        if version is None:
            return of_answer(upstream, reply.status, reply.headers, reply.body)
        self._timeout.answered(loop.time() - begun)
        return version

    def _is_back(self, reply: ProbeReply) -> bool:
        """Tell whether a question came back to this proxy, which refused it."""
        mark = self._mark
        return mark is not None and mark.is_on(reply.status, reply.headers)

    async def prepare(
        self, upstream: Upstream, wanted: Sequence[str], model: str | None
    ) -> AsyncGenerator[Progress, None]:
        """Go through the levels, telling each."""
        self._gpu.forget()
        yield Progress(Stage.CONNECTING)
        pause_s = _CONNECT_PAUSE_S
        while isinstance(fault := await self._version(upstream), ConnectFault):
            yield Progress(
                Stage.CONNECTING, problem=fault.message, needs_person=not fault.passes
            )
            await asyncio.sleep(pause_s)
            pause_s = min(_CONNECT_PAUSE_MAX_S, pause_s * 1.5)
        if self._sticky is not None:
            wanted = self._sticky.without_deleted(wanted)
        async for progress in self._fill(upstream, wanted):
            yield progress
        async for progress in self._load_one(upstream, wanted, model):
            yield progress

    async def _present(self, upstream: Upstream) -> set[str]:
        reply = await self._request_ok(upstream, "GET", "/api/tags", None)
        return {full_model_name(model.name) for model in listed_models(reply.body)}

    async def _fill(
        self, upstream: Upstream, wanted: Sequence[str]
    ) -> AsyncIterator[Progress]:
        """Give the instance the models that it lacks, those of clients last.

        The fraction told is that of all pulls together, and never falls.
        """
        present = await self._present(upstream)
        steps: list[RestoreStep] = [
            Pulling(name, insecure=False)
            for name in wanted
            if full_model_name(name) not in present
        ]
        needed = len(steps)
        if self._sticky is not None:
            coming = present | {full_model_name(name) for name in wanted}
            steps += self._sticky.steps(coming)
        count = sum(isinstance(step, Pulling) for step in steps)
        furthest, done = 0.0, 0
        failed: dict[str, str] = {}
        for number, step in enumerate(steps):
            is_needed = number < needed
            moving = _Movement(math.inf if is_needed else _STICKY_STALL_S)
            try:
                async for progress in self._take(upstream, step, failed):
                    moving.check(progress)
                    if progress.fraction is not None:
                        told = round((done + progress.fraction) / count, 3)
                        furthest = max(furthest, told)
                    yield replace(progress, fraction=furthest)
            except PreparationError as error:  # of a client's model: no launch fails
                lost = error.fault.reason == "lost" and not await self.alive(upstream)
                if is_needed or lost:
                    raise
                failed[step.name] = error.fault.message
            done += isinstance(step, Pulling)
        if self._sticky is not None:
            self._sticky.settle(await self._present(upstream), failed)

    async def _pull(
        self, upstream: Upstream, model: str, *, insecure: bool
    ) -> AsyncIterator[Progress]:
        """Pull a model and tell how far it is; ``success`` must be the last word.

        A gateway may cut every long answer: as long as the pull gets further, it is
        asked for again, and the server goes on where it was.
        """
        yield Progress(Stage.PULLING, 0.0, model)
        cut_at: Progress | None = None
        while True:
            last: Progress | None = None
            try:
                async for last in self._pull_once(upstream, model, insecure=insecure):
                    yield last
            except PreparationError as error:
                got_further = last is not None and last != cut_at
                if error.fault.reason != "lost" or not got_further:
                    raise
                if not await self.alive(upstream):
                    raise
                cut_at = last
            else:
                return

    async def _pull_once(
        self, upstream: Upstream, model: str, *, insecure: bool
    ) -> AsyncIterator[Progress]:
        status = ""
        body: dict[str, Any] = {"model": model, "stream": True}
        if insecure:
            body["insecure"] = True
        request = self._open(upstream, "POST", "/api/pull", body)
        try:
            async with request as response:
                check_own(response, upstream)
                async for line in read_lines(response, "/api/pull"):
                    told = read_progress(line)
                    status = told.status or status
                    if told.error:
                        raise PreparationError(_pull_fault(model, told.error))
                    moved = int(told.completed)
                    yield Progress(Stage.PULLING, told.fraction, model, moved)
        except (aiohttp.ClientError, OSError) as error:
            raise PreparationError(_broken("pulling", model, error)) from error
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
                await self._request_ok(upstream, "POST", "/api/copy", names)
            case Removing(name) if name not in failed:
                await self._request_ok(
                    upstream, "DELETE", "/api/delete", {"model": name}
                )

    async def _load_one(
        self, upstream: Upstream, wanted: Sequence[str], model: str | None
    ) -> AsyncIterator[Progress]:
        """Load one model; only that a configured one can't be loaded is a fault."""
        first = wanted[0] if wanted else None
        newest: LoadWish | None = None
        if self._wishes or (model and not wanted):
            present = await self._present(upstream)
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
        """See whether what was loaded is on the GPU; that nobody tells is no fault.

        Raises `PreparationError` if it is not, and this is to fail the launch.
        """
        if not self._gpu.is_on:
            return
        use, is_meant = None, wish.chooses_gpu
        with contextlib.suppress(PreparationError, TimeoutError):
            async with asyncio.timeout(_GPU_LOOK_S):
                reply = await self._request(upstream, "GET", "/api/ps", None)
                if reply.status == 200:  # noqa: PLR2004
                    use = read_gpu_use(reply.body, wish.model)
                if use is not None and not is_meant and use.size_vram < use.size:
                    is_meant = await self._chooses_gpu(upstream, wish.model)
        fault = self._gpu.take(use, is_meant=is_meant, is_ours=is_ours)
        if fault is not None:
            raise PreparationError(fault)

    async def _chooses_gpu(self, upstream: Upstream, model: str) -> bool:
        """Tell whether a model's own parameters say how much of it is on the GPU."""
        reply = await self._request(upstream, "POST", "/api/show", {"model": model})
        parameters = text_field(reply.body, "parameters") or ""
        return re.search(r"(?m)^num_gpu\s", parameters) is not None

    async def _load(self, upstream: Upstream, wish: LoadWish) -> bool:
        """Load a model; one that only embeds is loaded by an empty embedding.

        Return False if it was loaded already.
        """
        if wish.is_plain and await self._runs(upstream, wish.model):
            return False
        path = "/api/embed" if wish.embeds else "/api/generate"
        reply = await self._request(upstream, "POST", path, wish.body())
        if reply.status == 400 and "does not support generate" in reply.error():  # noqa: PLR2004
            body = replace(wish, embeds=True).body()
            reply = await self._request(upstream, "POST", "/api/embed", body)
        if reply.status != 200:  # noqa: PLR2004
            message = f"the model {wish.model!r} could not be loaded: {reply.error()}"
            raise PreparationError(Fault("load", message))
        return True

    async def _runs(self, upstream: Upstream, model: str) -> bool:
        """Tell whether a model is in memory already, loaded as somebody wanted it.

        So it is where an instance was adopted: to load it plainly would be to load it
        anew.
        """
        try:
            reply = await self._request(upstream, "GET", "/api/ps", None)
            loaded = listed_models(reply.body) if reply.status == 200 else []  # noqa: PLR2004
        except PreparationError:
            return False
        return full_model_name(model) in {full_model_name(one.name) for one in loaded}

    async def contents(self, upstream: Upstream) -> Snapshot:
        """Ask for tags and version, and show for each model."""
        tags = await self._request_ok(upstream, "GET", "/api/tags", None)
        version = await self._version(upstream)
        shows: dict[str, bytes] = {}
        for model in listed_models(tags.body)[:_SHOWN_MODELS]:
            reply = await self._request(
                upstream, "POST", "/api/show", {"model": model.name}
            )
            if reply.status == 200:  # noqa: PLR2004
                shows[full_model_name(model.name)] = reply.body
        known = "" if isinstance(version, ConnectFault) else version
        return Snapshot(tags.body, known, shows)

    def _open(
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

    async def _get(self, upstream: Upstream, path: str) -> ProbeReply:
        async with self._open(upstream, "GET", path, None) as response:
            return await read_reply(response, upstream, path)

    async def _request_ok(
        self, upstream: Upstream, method: str, path: str, body: dict[str, Any] | None
    ) -> ProbeReply:
        reply = await self._request(upstream, method, path, body)
        if reply.status != 200:  # noqa: PLR2004
            message = f"the instance answered {path} with {reply.error()}"
            if self._is_back(reply):
                message = of_loop(upstream).message
            raise PreparationError(Fault("probe", message))
        return reply

    async def _request(
        self, upstream: Upstream, method: str, path: str, body: dict[str, Any] | None
    ) -> ProbeReply:
        tries = _TRIES if upstream.link is not None and upstream.link.is_marked else 1
        for left in reversed(range(tries)):
            try:
                async with self._open(upstream, method, path, body) as response:
                    return await read_reply(response, upstream, path)
            except (aiohttp.ClientError, OSError) as error:
                if not left:
                    raise PreparationError(_broken("asking", path, error)) from error
            await asyncio.sleep(_TRY_PAUSE_S)  # a gateway had its say, or its limit
        raise AssertionError("the last try returns or raises")


class _Movement:
    """Notices a pull that says the same for ``limit_s`` seconds."""

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


def _broken(doing: str, what: str, error: Exception) -> Fault:
    said = str(error) or type(error).__name__
    message = f"the instance broke off while {doing} {what!r}: {said}"
    return Fault("lost", message)
