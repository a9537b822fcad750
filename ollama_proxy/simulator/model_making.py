"""Serve the simulator's routes that make or move models, and tell how far they are."""

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from aiohttp import web

from ollama_proxy.simulator.faults import requested
from ollama_proxy.simulator.models import is_model_name
from ollama_proxy.simulator.requests import model_name, read_json
from ollama_proxy.simulator.state import Simulator
from ollama_proxy.simulator.wire import reply, stream_lines

_PULL_STEPS = 20
_LAYER_BYTES = 1_321_082_688


class ModelMaking:
    """Pulls, pushes and creates."""

    def __init__(self, simulator: Simulator) -> None:
        self._manners, self._store = simulator.manners, simulator.store

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this part."""
        return [
            web.post("/api/pull", self.pull),
            web.post("/api/push", self.push),
            web.post("/api/create", self.create),
        ]

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """Pull any model, except names that contain ``missing``."""
        body = await read_json(request)
        name = model_name(body)
        if not is_model_name(name):
            return reply({"error": "invalid model name"}, 400)
        return await self._progress(request, body, self._pull_lines(name))

    def _pull_lines(self, name: str) -> Iterator[tuple[float, dict[str, Any]]]:
        yield 0.0, {"status": "pulling manifest"}
        if "missing" in name:
            yield 0.0, {"error": "pull model manifest: file does not exist"}
            return
        digest = hashlib.sha256(name.encode()).hexdigest()
        for number in range(_PULL_STEPS + 1):
            yield (
                self._manners.pull_s / _PULL_STEPS,
                {
                    "status": f"pulling {digest[:12]}",
                    "digest": f"sha256:{digest}",
                    "total": _LAYER_BYTES,
                    "completed": _LAYER_BYTES * number // _PULL_STEPS,
                },
            )
        self._store.add(name)
        for status in ("verifying sha256 digest", "writing manifest", "success"):
            yield 0.0, {"status": status}

    async def push(self, request: web.Request) -> web.StreamResponse:
        """Pretend to push."""
        body = await read_json(request)
        name = model_name(body)
        if not name:
            return reply({"error": "model is required"}, 400)
        lines: list[tuple[float, dict[str, Any]]] = [
            (0.0, {"status": "retrieving manifest"})
        ]
        if self._store.get(name) is None:
            lines.append((0.0, {"error": "couldn't retrieve manifest"}))
        else:
            lines += [(0.0, {"status": s}) for s in ("pushing manifest", "success")]
        return await self._progress(request, body, lines)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Make a model from another one or from blobs."""
        body = await read_json(request)
        name, source = model_name(body), str(body.get("from") or "")
        if not is_model_name(name):
            return reply({"error": "invalid model name"}, 400)
        if not source and not body.get("files"):
            error = {"error": "neither 'from' or 'files' was specified"}
            return reply(error, 400, native=False)
        if source and self._store.get(source) is None:
            self._store.add(source)
        self._store.add(name, system=str(body.get("system") or ""), parent=source)
        statuses = ("using existing layer", "writing manifest", "success")
        lines = [(0.0, {"status": status}) for status in statuses]
        return await self._progress(request, body, lines)

    async def _progress(
        self,
        request: web.Request,
        body: dict[str, Any],
        lines: Iterable[tuple[float, dict[str, Any]]],
    ) -> web.StreamResponse:
        """Tell progress as a stream, or only its end."""
        if body.get("stream", True):
            faults = requested(request, self._manners.faults)
            return await stream_lines(request, faults, lines)
        last: dict[str, Any] = {}
        for pause_s, line in lines:
            await asyncio.sleep(pause_s)
            last = line
        return reply(last, 500 if "error" in last else 200, native=False)
