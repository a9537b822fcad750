"""Serve the simulator's routes of models: list, describe, copy, delete."""

from typing import Any

from aiohttp import web

from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.simulator.models import is_model_name, listed, running, shown
from ollama_proxy.simulator.refusals import openai_error
from ollama_proxy.simulator.requests import model_name, read_json
from ollama_proxy.simulator.state import Simulator
from ollama_proxy.simulator.wire import reply


class Library:
    """Tells of the models that are there, natively and as OpenAI does."""

    def __init__(self, simulator: Simulator) -> None:
        self._manners, self._store = simulator.manners, simulator.store

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this part."""
        return [
            web.get("/api/tags", self.tags),
            web.get("/api/ps", self.ps, allow_head=False),
            web.post("/api/show", self.show),
            web.post("/api/copy", self.copy),
            web.delete("/api/delete", self.delete),
            web.get("/v1/models", self.models, allow_head=False),
            web.get("/v1/models/{model}", self.model, allow_head=False),
        ]

    async def tags(self, _request: web.Request) -> web.Response:
        """List the models."""
        models = [listed(model) for model in self._store.models.values()]
        return reply({"models": models})

    async def ps(self, _request: web.Request) -> web.Response:
        """List the loaded models."""
        loaded, share = self._store.running().items(), self._manners.vram_share
        return reply(
            {"models": [running(self._store.models[n], at, share) for n, at in loaded]}
        )

    async def models(self, _request: web.Request) -> web.Response:
        """List the models as OpenAI does."""
        data = [self._openai(name) for name in self._store.models] or None
        return reply({"object": "list", "data": data}, native=False)

    async def model(self, request: web.Request) -> web.Response:
        """Tell of one model as OpenAI does."""
        name = request.match_info["model"]
        if self._store.get(name) is None:
            return openai_error(404, f"model '{full_model_name(name)}' not found")
        return reply(self._openai(name), native=False)

    def _openai(self, name: str) -> dict[str, Any]:
        model = self._store.models[full_model_name(name)]
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
        model = self._store.get(name)
        if model is None:
            return reply({"error": f"model '{full_model_name(name)}' not found"}, 404)
        return reply(shown(model))

    async def copy(self, request: web.Request) -> web.Response:
        """Copy a model."""
        body = await read_json(request)
        for key in ("source", "destination"):
            name = str(body.get(key) or "")
            if not is_model_name(name):
                return reply({"error": f'{key} "{name}" is invalid'}, 400)
        source = self._store.get(str(body["source"]))
        if source is None:
            return reply({"error": f'model "{body["source"]}" not found'}, 404)
        self._store.add(str(body["destination"]), system=source.system)
        return web.Response()

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a model."""
        name = model_name(await read_json(request))
        if not name:
            return reply({"error": "model is required"}, 400)
        if not self._store.remove(name):
            return reply({"error": f"model '{name}' not found"}, 404)
        return web.Response()
