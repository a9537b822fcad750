"""Serve the simulator's inference routes in Ollama's own shapes."""

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from ollama_proxy.simulator.inference import (
    Chat,
    Inference,
    decide,
    keep_alive_s,
    texts_of,
)
from ollama_proxy.simulator.models import go_time
from ollama_proxy.simulator.requests import model_name, read_json
from ollama_proxy.simulator.wire import NDJSON, reply
from ollama_proxy.simulator.words import embedding, words


class Native:
    """Answers as Ollama does: lines of JSON, with the model's times at their end."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this part."""
        return [
            web.post("/api/generate", self.generate),
            web.post("/api/chat", self.chat),
            web.post("/api/embed", self.embed),
            web.post("/api/embeddings", self.old_embeddings),
        ]

    def _stamp(self, model: str) -> dict[str, Any]:
        return {"model": model, "created_at": go_time(self._inference.now())}

    def _unloaded(self, body: dict[str, Any], said: dict[str, Any]) -> web.Response:
        name = model_name(body)
        if not self._inference.unload(body):
            return reply({"error": f"model '{name}' not found"}, 404)
        return reply(self._stamp(name) | said | {"done": True, "done_reason": "unload"})

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Complete a prompt; without one, load or unload the model."""
        body = await read_json(request)
        if not body.get("prompt") and keep_alive_s(body) == 0:
            return self._unloaded(body, {"response": ""})
        if await self._inference.loaded(body) is None:
            return reply({"error": f"model '{model_name(body)}' not found"}, 404)
        stamp = self._stamp(model_name(body))
        if not body.get("prompt"):
            return reply(stamp | {"response": "", "done": True, "done_reason": "load"})
        tokens = words(body.get("options"), body.get("format"))
        done = _done(tokens, body.get("options"), with_context=not body.get("raw"))
        if not body.get("stream", True):
            text = "".join([token async for token in self._inference.paced(tokens)])
            return reply(stamp | {"response": text} | done)
        stream = self._inference.stream(request, NDJSON)
        async for token in self._inference.paced(tokens):
            stamp = self._stamp(model_name(body))
            await stream.line(stamp | {"response": token, "done": False})
        await stream.line(stamp | {"response": ""} | done)
        return await stream.end()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a conversation."""
        body = await read_json(request)
        nothing = {"message": {"role": "assistant", "content": ""}}
        if not model_name(body):
            return reply({"error": "model is required"}, 400)
        if not body.get("messages") and keep_alive_s(body) == 0:
            return self._unloaded(body, nothing)
        if await self._inference.loaded(body) is None:
            return reply({"error": f"model '{model_name(body)}' not found"}, 404)
        stamp = self._stamp(model_name(body))
        if not body.get("messages"):
            return reply(stamp | nothing | {"done": True, "done_reason": "load"})
        chat = decide(body, body.get("options"), body.get("format"))
        done = _done(chat.tokens, body.get("options"))
        if not body.get("stream", True):
            message = await self._whole(chat)
            return reply(stamp | {"message": message} | done)
        stream = self._inference.stream(request, NDJSON)
        async for message in self._messages(chat):
            stamp = self._stamp(model_name(body))
            await stream.line(stamp | {"message": message, "done": False})
        await stream.line(stamp | nothing | done)
        return await stream.end()

    async def _messages(self, chat: Chat) -> AsyncIterator[dict[str, Any]]:
        """Yield the parts of a native answer."""
        async for token in self._inference.paced(chat.thinking):
            yield {"role": "assistant", "content": "", "thinking": token}
        if chat.call is not None:
            calls = [{"function": chat.call}]
            yield {"role": "assistant", "content": "", "tool_calls": calls}
            return
        async for token in self._inference.paced(chat.tokens):
            yield {"role": "assistant", "content": token}

    async def _whole(self, chat: Chat) -> dict[str, Any]:
        whole: dict[str, Any] = {"role": "assistant", "content": ""}
        async for message in self._messages(chat):
            whole["content"] += message["content"]
            if "thinking" in message:
                whole["thinking"] = whole.get("thinking", "") + message["thinking"]
            if "tool_calls" in message:
                whole["tool_calls"] = message["tool_calls"]
        return whole

    async def embed(self, request: web.Request) -> web.Response:
        """Embed one text or many."""
        body = await read_json(request)
        texts = texts_of(body.get("input"))
        if await self._inference.loaded(body) is None:
            text = f'model "{model_name(body)}" not found, try pulling it first'
            return reply({"error": text}, 404)
        counts = {"total_duration": 1_000_000, "load_duration": 1000}
        vectors = {"embeddings": [embedding(text) for text in texts]}
        tokens = {"prompt_eval_count": len(texts)}
        return reply({"model": model_name(body)} | vectors | counts | tokens)

    async def old_embeddings(self, request: web.Request) -> web.Response:
        """Embed one text the old way."""
        body = await read_json(request)
        if await self._inference.loaded(body) is None:
            text = f'model "{model_name(body)}" not found, try pulling it first'
            return reply({"error": text}, 404)
        return reply({"embedding": embedding(str(body.get("prompt", "")))})


def _done(
    tokens: list[str], options: dict[str, Any] | None, *, with_context: bool = False
) -> dict[str, Any]:
    """Return what ends a native answer."""
    limit = (options or {}).get("num_predict")
    context = {"context": list(range(len(tokens)))} if with_context else {}
    return {
        "done": True,
        "done_reason": "length" if limit == len(tokens) else "stop",
        **context,
        "total_duration": 1_000_000,
        "load_duration": 1000,
        "prompt_eval_count": 1,
        "prompt_eval_duration": 1000,
        "eval_count": len(tokens),
        "eval_duration": 1000,
    }
