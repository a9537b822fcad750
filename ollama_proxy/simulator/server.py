"""Build the simulator's application: routes, the model store's endpoints, manners."""

import asyncio
import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from ollama_proxy.core.ollama.cold_refusals import refusal
from ollama_proxy.core.ollama.go_json import (
    GoSyntaxError,
    UnreadBodyError,
    are_folded,
    read_members,
)
from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.ollama.routes import classify
from ollama_proxy.simulator.faults import Faults, requested
from ollama_proxy.simulator.models import ModelStore, listed, running, shown
from ollama_proxy.simulator.wire import reply, stream_lines

VERSION = "0.33.0"
_PULL_STEPS = 20
_LAYER_BYTES = 1_321_082_688


@dataclass(slots=True)
class Manners:
    """Holds how the simulator behaves. ``rate``: tokens a second, 0 is unbounded.

    ``max_loaded``: how many models are in memory at once, 0 is unbounded.
    ``vram_share``: how much of a loaded model is said to be on a GPU, 0–1.
    """

    rate: float = 0.0
    load_s: float = 0.0
    pull_s: float = 0.0
    max_loaded: int = 0
    vram_share: float = 0.0
    faults: Faults = field(default_factory=Faults)


@dataclass(slots=True)
class Counters:
    """Counts what was done, for tests and the curious: ``GET /-/simulator``."""

    requests: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    cancelled: int = 0


class Simulator:
    """Serves everything but inference: system, model store, counters."""

    def __init__(self, manners: Manners, now: Callable[[], float]) -> None:
        self.manners = manners
        self.now = now
        self.store = ModelStore(
            now, load_s=manners.load_s, max_loaded=manners.max_loaded
        )
        self.counters = Counters()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this part."""
        return [
            web.get("/", self.root),
            web.get("/api/version", self.version),
            web.get("/api/status", self.status, allow_head=False),
            web.post("/api/me", self.me),
            web.post("/api/signout", self.me),
            web.get(
                "/api/experimental/model-recommendations",
                self.recommendations,
                allow_head=False,
            ),
            web.get("/api/tags", self.tags),
            web.get("/api/ps", self.ps, allow_head=False),
            web.post("/api/show", self.show),
            web.post("/api/pull", self.pull),
            web.post("/api/push", self.push),
            web.post("/api/create", self.create),
            web.post("/api/copy", self.copy),
            web.delete("/api/delete", self.delete),
            web.head("/api/blobs/{digest}", self.head_blob),
            web.post(
                "/api/blobs/{digest}", self.post_blob, expect_handler=_invite_later
            ),
            web.get("/v1/models", self.models, allow_head=False),
            web.get("/v1/models/{model}", self.model, allow_head=False),
            web.get("/-/simulator", self.state),
        ]

    async def root(self, _request: web.Request) -> web.Response:
        """Say that it runs."""
        return web.Response(text="Ollama is running", content_type="text/plain")

    async def version(self, _request: web.Request) -> web.Response:
        """Name the version."""
        return reply({"version": VERSION})

    async def status(self, _request: web.Request) -> web.Response:
        """Tell of the cloud features."""
        return reply({"cloud": {"disabled": False, "source": "none"}})

    async def me(self, _request: web.Request) -> web.Response:
        """Know no account."""
        return reply({"error": "account unavailable"}, 503)

    async def recommendations(self, _request: web.Request) -> web.Response:
        """Recommend nothing."""
        return reply({"recommendations": []})

    async def state(self, _request: web.Request) -> web.Response:
        """Tell what was done."""
        counts = {
            "requests": self.counters.requests,
            "in_flight": self.counters.in_flight - 1,
            "cancelled": self.counters.cancelled,
            "loads": self.store.loads,
            "aborted_loads": self.store.aborted_loads,
        }
        return reply(counts)

    async def tags(self, _request: web.Request) -> web.Response:
        """List the models."""
        models = [listed(model) for model in self.store.models.values()]
        return reply({"models": models})

    async def ps(self, _request: web.Request) -> web.Response:
        """List the loaded models."""
        loaded, share = self.store.running().items(), self.manners.vram_share
        return reply(
            {"models": [running(self.store.models[n], at, share) for n, at in loaded]}
        )

    async def models(self, _request: web.Request) -> web.Response:
        """List the models as OpenAI does."""
        data = [self._openai(name) for name in self.store.models] or None
        return reply({"object": "list", "data": data}, native=False)

    async def model(self, request: web.Request) -> web.Response:
        """Tell of one model as OpenAI does."""
        name = request.match_info["model"]
        if self.store.get(name) is None:
            return openai_error(404, f"model '{full_model_name(name)}' not found")
        return reply(self._openai(name), native=False)

    def _openai(self, name: str) -> dict[str, Any]:
        model = self.store.models[full_model_name(name)]
        created = int(model.modified_at)
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "library",
        }

    async def show(self, request: web.Request) -> web.Response:
        """Describe a model."""
        name = model_name(await read_json(request))
        if not name:
            return reply({"error": "model is required"}, 400)
        model = self.store.get(name)
        if model is None:
            return reply({"error": f"model '{full_model_name(name)}' not found"}, 404)
        return reply(shown(model))

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """Pull any model but those whose name says that they are missing."""
        body = await read_json(request)
        name = model_name(body)
        if not _NAME.fullmatch(name):
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
                self.manners.pull_s / _PULL_STEPS,
                {
                    "status": f"pulling {digest[:12]}",
                    "digest": f"sha256:{digest}",
                    "total": _LAYER_BYTES,
                    "completed": _LAYER_BYTES * number // _PULL_STEPS,
                },
            )
        self.store.add(name)
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
        if self.store.get(name) is None:
            lines.append((0.0, {"error": "couldn't retrieve manifest"}))
        else:
            lines += [(0.0, {"status": s}) for s in ("pushing manifest", "success")]
        return await self._progress(request, body, lines)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Make a model from another one or from blobs."""
        body = await read_json(request)
        name, source = model_name(body), str(body.get("from") or "")
        if not _NAME.fullmatch(name):
            return reply({"error": "invalid model name"}, 400)
        if not source and not body.get("files"):
            error = {"error": "neither 'from' or 'files' was specified"}
            return reply(error, 400, native=False)
        if source and self.store.get(source) is None:
            self.store.add(source)
        self.store.add(name, system=str(body.get("system") or ""), parent=source)
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
            faults = requested(request, self.manners.faults)
            return await stream_lines(request, faults, lines)
        last: dict[str, Any] = {}
        for pause_s, line in lines:
            await asyncio.sleep(pause_s)
            last = line
        return reply(last, 500 if "error" in last else 200, native=False)

    async def copy(self, request: web.Request) -> web.Response:
        """Copy a model."""
        body = await read_json(request)
        for key in ("source", "destination"):
            name = str(body.get(key) or "")
            if not _NAME.fullmatch(name):
                return reply({"error": f'{key} "{name}" is invalid'}, 400)
        source = self.store.get(str(body["source"]))
        if source is None:
            return reply({"error": f'model "{body["source"]}" not found'}, 404)
        self.store.add(str(body["destination"]), system=source.system)
        return web.Response()

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a model."""
        name = model_name(await read_json(request))
        if not name:
            return reply({"error": "model is required"}, 400)
        if not self.store.remove(name):
            return reply({"error": f"model '{name}' not found"}, 404)
        return web.Response()

    async def head_blob(self, request: web.Request) -> web.Response:
        """Tell whether a blob is there."""
        digest = request.match_info["digest"]
        if not _DIGEST.fullmatch(digest):
            return reply({"error": "invalid digest format"}, 400)
        if digest.replace("-", ":", 1) not in self.store.blobs:
            return reply({"error": "blob not found"}, 404)
        return web.Response()

    async def post_blob(self, request: web.Request) -> web.Response:
        """Store a blob's length under its digest; a big one that is there is not read.

        A new blob has to be named with a colon: the name is compared to the letter.
        """
        wanted = request.match_info["digest"]
        if not _DIGEST.fullmatch(wanted):
            return await _unread(
                reply({"error": "invalid digest format"}, 400), request
            )
        if wanted.replace("-", ":", 1) in self.store.blobs:
            return await _unread(web.Response(), request)
        await invite(request)
        digest, size = hashlib.sha256(), 0
        async for data in request.content.iter_any():
            digest.update(data)
            size += len(data)
        got = f"sha256:{digest.hexdigest()}"
        self.store.blobs[got] = size
        if got != wanted:
            text = f'digest mismatch, expected "{wanted}", got "{got}"'
            return reply({"error": text}, 400)
        return web.Response(status=201)


_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_./:-]*[A-Za-z0-9_])?")
_DIGEST = re.compile(r"sha256[:-][0-9a-f]{64}")
_DRAINED = 256 * 1024


async def _unread(response: web.Response, request: web.Request) -> web.Response:
    """Drain a small unread body; close the connection of a big one."""
    length = request.content_length
    size = 0 if length is None else length
    if "Expect" in request.headers:
        size = _DRAINED + 1
    while size <= _DRAINED and (data := await request.content.readany()):
        size += len(data) if length is None else 0
    if size > _DRAINED:
        response.force_close()
    return response


async def invite(request: web.Request) -> None:
    """Send ``100 Continue`` to a client that waits for it."""
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def _invite_later(_request: web.Request) -> None:
    """Leave ``100 Continue`` to the handler, as Go does."""


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return a request's JSON object, or refuse it in Ollama's words."""
    await invite(request)
    raw = b"".join([data async for data in request.content.iter_any()])
    refused = refusal(classify(request.method, request.path).name, raw)
    if refused is not None and refused.status == 400:  # noqa: PLR2004
        raise web.HTTPBadRequest(text=refused.message)
    try:
        return _decoded(raw)
    except (GoSyntaxError, UnreadBodyError) as error:
        raise web.HTTPBadRequest(text=str(error)) from error


def _decoded(raw: bytes) -> dict[str, Any]:
    """Return the first JSON object of a body, read as Go reads it."""
    try:
        body = msgspec.json.decode(raw)
        if isinstance(body, dict) and are_folded(body):
            return body
    except UNREADABLE:
        pass
    members: dict[str, Any] = {}
    for name, one in read_members(raw).items():
        with contextlib.suppress(
            msgspec.MsgspecError
        ):  # Go skips what it has no field for
            members[name] = msgspec.json.decode(one)
    return members


def model_name(body: dict[str, Any]) -> str:
    """Return the model: ``model``, else the older ``name``."""
    return str(body.get("model") or body.get("name") or "")


def openai_error(status: int, message: str) -> web.Response:
    """Return an error in OpenAI's shape."""
    kinds = {400: "invalid_request_error", 404: "not_found_error"}
    kind = kinds.get(status, "api_error")
    error = {"message": message, "type": kind, "param": None, "code": None}
    return reply({"error": error}, status, native=False)


def anthropic_error(status: int, message: str) -> web.Response:
    """Return an error in Anthropic's shape."""
    kinds = {400: "invalid_request_error", 404: "not_found_error"}
    error = {"type": kinds.get(status, "api_error"), "message": message}
    body = {"type": "error", "error": error, "request_id": "req_simulated"}
    return reply(body, status, native=False)


SIMULATOR = web.AppKey("simulator", Simulator)


@web.middleware
async def _behave(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request, and answer faults and unknown paths as Ollama does."""
    simulator = request.app[SIMULATOR]
    counters = simulator.counters
    counters.requests[request.path] = counters.requests.get(request.path, 0) + 1
    counters.in_flight += 1
    try:
        faults = requested(request, simulator.manners.faults)
        if faults.delay:
            await asyncio.sleep(faults.delay)
        if faults.status is not None:
            return reply({"error": "simulated failure"}, faults.status)
        return await handler(request)
    except web.HTTPException as error:
        return _refusal(request, error)
    except (asyncio.CancelledError, ConnectionError):
        counters.cancelled += 1
        raise
    finally:
        counters.in_flight -= 1


def _refusal(request: web.Request, error: web.HTTPException) -> web.Response:
    if error.status == 400:  # noqa: PLR2004
        if request.path.startswith("/v1/messages"):
            return anthropic_error(400, error.text or "")
        if request.path.startswith("/v1/"):
            return openai_error(400, error.text or "")
        return reply({"error": error.text}, 400)
    if error.status == 405:  # noqa: PLR2004
        allowed = ", ".join(sorted(error.headers.get("Allow", "").split(","), key=len))
        return plain(405, "405 method not allowed", {"Allow": allowed})
    cleaned = re.sub("/+", "/", request.path).rstrip("/") or "/"
    if cleaned != request.path and classify(request.method, cleaned).name != "other":
        moved = 301 if request.method == "GET" and "//" not in request.path else 307
        return web.Response(status=moved, headers={"Location": cleaned})
    return plain(404, "404 page not found")


def plain(
    status: int, text: str, headers: dict[str, str] | None = None
) -> web.Response:
    """Answer as Go's router does: a text without a charset."""
    body = text.encode()
    return web.Response(
        status=status,
        body=body,
        headers={"Content-Type": "text/plain"} | (headers or {}),
    )


async def _no_server_header(
    _request: web.BaseRequest, response: web.StreamResponse
) -> None:
    """Name no server: Ollama does not either."""
    response.headers.pop("Server", None)


def build_simulator(
    manners: Manners,
    *,
    models: Sequence[str] = (),
    now: Callable[[], float] = time.time,  # noqa: TID251 - its edge
) -> web.Application:
    """Return the stand-in, with ``models`` in its store from the start."""
    from ollama_proxy.simulator.anthropic import Messages  # noqa: PLC0415 - it needs us
    from ollama_proxy.simulator.inference import Inference  # noqa: PLC0415 - likewise

    app = web.Application(middlewares=[_behave])
    simulator = Simulator(manners, now)
    for name in models:
        simulator.store.add(name)
    app[SIMULATOR] = simulator
    app.add_routes(simulator.routes())
    inference = Inference(simulator)
    app.add_routes(inference.routes())
    app.add_routes(Messages(inference).routes())
    app.on_response_prepare.append(_no_server_header)
    return app
