"""Serve the simulator's inference routes: native and OpenAI."""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from ollama_proxy.core.ollama.durations import go_duration_s
from ollama_proxy.simulator.faults import requested
from ollama_proxy.simulator.models import Model, go_time
from ollama_proxy.simulator.server import (
    Simulator,
    model_name,
    openai_error,
    read_json,
)
from ollama_proxy.simulator.wire import NDJSON, SSE, Stream, reply, sse
from ollama_proxy.simulator.words import embedding, tool_arguments, tool_call, words


@dataclass(frozen=True, slots=True)
class Chat:
    """Holds what a chat is answered with."""

    tokens: list[str]
    thinking: list[str]
    call: dict[str, Any] | None


_RUNNER_OPTIONS = (
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "use_mmap",
    "num_thread",
    "draft_num_predict",
)


class Inference:
    """Generates words at a set rate, in each family's shape."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._number = 0

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this part."""
        return [
            web.post("/api/generate", self.generate),
            web.post("/api/chat", self.chat),
            web.post("/api/embed", self.embed),
            web.post("/api/embeddings", self.old_embeddings),
            web.post("/v1/chat/completions", self.chat_completions),
            web.post("/v1/completions", self.completions),
            web.post("/v1/embeddings", self.openai_embeddings),
            web.post("/v1/responses", self.responses),
            web.post("/v1/audio/transcriptions", self.transcriptions),
        ]

    async def loaded(self, body: dict[str, Any]) -> Model | None:
        """Return the model of a request once it is in memory; None if unknown."""
        model = self._simulator.store.get(model_name(body))
        if model is not None:
            await self._simulator.store.load(model, runner_options(body))
            self._simulator.store.keep(model, _keep_alive_s(body))
        return model

    async def paced(self, tokens: list[str]) -> AsyncIterator[str]:
        """Yield tokens at the set rate, by the clock and not by the sum of naps."""
        loop = asyncio.get_running_loop()
        begun, rate = loop.time(), self._simulator.manners.rate
        for number, token in enumerate(tokens, 1):
            if rate:
                await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))
            yield token

    def stream(self, request: web.Request, kind: str) -> Stream:
        """Begin an answer in pieces."""
        return Stream(request, kind, requested(request, self._simulator.manners.faults))

    def new_id(self, prefix: str) -> str:
        """Return an id that was not used before."""
        self._number += 1
        return f"{prefix}{self._number}"

    def _stamp(self, model: str) -> dict[str, Any]:
        return {"model": model, "created_at": go_time(self._simulator.now())}

    def _unloaded(self, body: dict[str, Any], said: dict[str, Any]) -> web.Response:
        name = model_name(body)
        model = self._simulator.store.get(name)
        if model is None:
            return reply({"error": f"model '{name}' not found"}, 404)
        self._simulator.store.unload(model)
        return reply(self._stamp(name) | said | {"done": True, "done_reason": "unload"})

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Complete a prompt; without one, load or unload the model."""
        body = await read_json(request)
        if not body.get("prompt") and _keep_alive_s(body) == 0:
            return self._unloaded(body, {"response": ""})
        if await self.loaded(body) is None:
            return reply({"error": f"model '{model_name(body)}' not found"}, 404)
        stamp = self._stamp(model_name(body))
        if not body.get("prompt"):
            return reply(stamp | {"response": "", "done": True, "done_reason": "load"})
        tokens = words(body.get("options"), body.get("format"))
        done = _done(tokens, body.get("options"), with_context=not body.get("raw"))
        if not body.get("stream", True):
            text = "".join([token async for token in self.paced(tokens)])
            return reply(stamp | {"response": text} | done)
        stream = self.stream(request, NDJSON)
        async for token in self.paced(tokens):
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
        if not body.get("messages") and _keep_alive_s(body) == 0:
            return self._unloaded(body, nothing)
        if await self.loaded(body) is None:
            return reply({"error": f"model '{model_name(body)}' not found"}, 404)
        stamp = self._stamp(model_name(body))
        if not body.get("messages"):
            return reply(stamp | nothing | {"done": True, "done_reason": "load"})
        chat = decide(body, body.get("options"), body.get("format"))
        done = _done(chat.tokens, body.get("options"))
        if not body.get("stream", True):
            message = await self._whole(chat)
            return reply(stamp | {"message": message} | done)
        stream = self.stream(request, NDJSON)
        async for message in self._messages(chat):
            stamp = self._stamp(model_name(body))
            await stream.line(stamp | {"message": message, "done": False})
        await stream.line(stamp | nothing | done)
        return await stream.end()

    async def _messages(self, chat: Chat) -> AsyncIterator[dict[str, Any]]:
        """Yield the parts of a native answer."""
        async for token in self.paced(chat.thinking):
            yield {"role": "assistant", "content": "", "thinking": token}
        if chat.call is not None:
            calls = [{"function": chat.call}]
            yield {"role": "assistant", "content": "", "tool_calls": calls}
            return
        async for token in self.paced(chat.tokens):
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
        texts = _texts(body.get("input"))
        if await self.loaded(body) is None:
            text = f'model "{model_name(body)}" not found, try pulling it first'
            return reply({"error": text}, 404)
        counts = {"total_duration": 1_000_000, "load_duration": 1000}
        vectors = {"embeddings": [embedding(text) for text in texts]}
        tokens = {"prompt_eval_count": len(texts)}
        return reply({"model": model_name(body)} | vectors | counts | tokens)

    async def old_embeddings(self, request: web.Request) -> web.Response:
        """Embed one text the old way."""
        body = await read_json(request)
        if await self.loaded(body) is None:
            text = f'model "{model_name(body)}" not found, try pulling it first'
            return reply({"error": text}, 404)
        return reply({"embedding": embedding(str(body.get("prompt", "")))})

    async def openai_embeddings(self, request: web.Request) -> web.Response:
        """Embed as OpenAI does, as numbers or base64."""
        body = await read_json(request)
        if await self.loaded(body) is None:
            return _openai_unknown(body)
        data = []
        for index, text in enumerate(_texts(body.get("input"))):
            vector: object = embedding(text)
            if body.get("encoding_format") == "base64":
                packed = struct.pack(f"<{len(embedding(text))}f", *embedding(text))
                vector = base64.b64encode(packed).decode()
            data.append({"object": "embedding", "embedding": vector, "index": index})
        usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
        answer = {"object": "list", "data": data, "model": model_name(body)}
        return reply(answer | {"usage": usage}, native=False)

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        """Answer a conversation as OpenAI does."""
        body = await read_json(request)
        if await self.loaded(body) is None:
            return _openai_unknown(body)
        chat = decide(body, _openai_options(body), body.get("response_format"))
        head = self._openai_head(body, "chat.completion")
        calls = _openai_calls(chat.call)
        reason = "tool_calls" if calls else "stop"
        if not body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": ""}
            if calls:
                message["tool_calls"] = calls
            else:
                paced = self.paced(chat.tokens)
                message["content"] = "".join([token async for token in paced])
            choice = {"index": 0, "message": message, "finish_reason": reason}
            return reply(
                head | {"choices": [choice], "usage": _usage(chat.tokens)}, native=False
            )
        head["object"] = "chat.completion.chunk"
        stream = self.stream(request, SSE)
        delta: dict[str, Any] = {"role": "assistant", "content": ""}
        if calls:
            delta["tool_calls"] = calls
            await stream.event(head | {"choices": [_delta(delta, None)]})
        async for token in self.paced(chat.tokens):
            delta["content"] = token
            await stream.event(head | {"choices": [_delta(delta, None)]})
            delta = {}
        last = sse(head | {"choices": [_delta({}, reason)]})
        if (body.get("stream_options") or {}).get("include_usage"):
            await stream.send(last)
            last = sse(head | {"choices": [], "usage": _usage(chat.tokens)})
        await stream.send(last + b"data: [DONE]\n\n")
        return await stream.end()

    def _openai_head(
        self, body: dict[str, Any], kind: str, prefix: str = "chatcmpl-"
    ) -> dict[str, Any]:
        return {
            "id": self.new_id(prefix),
            "object": kind,
            "created": int(self._simulator.now()),
            "model": model_name(body),
            "system_fingerprint": "fp_ollama",
        }

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Complete a prompt as OpenAI does."""
        body = await read_json(request)
        if await self.loaded(body) is None:
            return _openai_unknown(body)
        tokens = words(_openai_options(body), None)
        head = self._openai_head(body, "text_completion", "cmpl-")
        if not body.get("stream"):
            text = "".join([token async for token in self.paced(tokens)])
            choice = {"text": text, "index": 0, "finish_reason": "stop"}
            return reply(
                head | {"choices": [choice], "usage": _usage(tokens)}, native=False
            )
        stream = self.stream(request, SSE)
        async for token in self.paced(tokens):
            choice = {"text": token, "index": 0, "finish_reason": None}
            await stream.event(head | {"choices": [choice]})
        choice = {"text": "", "index": 0, "finish_reason": "stop"}
        await stream.send(sse(head | {"choices": [choice]}) + b"data: [DONE]\n\n")
        return await stream.end()

    async def responses(self, request: web.Request) -> web.StreamResponse:
        """Answer as OpenAI's Responses API does."""
        body = await read_json(request)
        if await self.loaded(body) is None:
            return _openai_unknown(body)
        tokens = words({"num_predict": body.get("max_output_tokens")}, None)
        item_id = self.new_id("msg_")
        response = {
            "id": self.new_id("resp_"),
            "object": "response",
            "created_at": int(self._simulator.now()),
            "model": model_name(body),
            "status": "in_progress",
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        part = {"type": "output_text", "text": "".join(tokens), "annotations": []}
        item: dict[str, Any] = {"type": "message", "id": item_id}
        item |= {"status": "completed", "role": "assistant", "content": [part]}
        done = response | {"status": "completed", "output": [item]}
        if not body.get("stream"):
            _ = [token async for token in self.paced(tokens)]
            return reply(done, native=False)
        stream = self.stream(request, SSE)
        number = 0
        for name, value in (
            ("response.created", {"response": response}),
            (
                "response.output_item.added",
                {"output_index": 0, "item": item | {"content": []}},
            ),
        ):
            event = {"type": name, "sequence_number": number} | value
            await stream.event(event, name)
            number += 1
        place = {"item_id": item_id, "output_index": 0, "content_index": 0}
        async for token in self.paced(tokens):
            name = "response.output_text.delta"
            event = {"type": name, "sequence_number": number, "delta": token}
            await stream.event(event | place | {"logprobs": []}, name)
            number += 1
        name = "response.completed"
        await stream.event(
            {"type": name, "sequence_number": number, "response": done}, name
        )
        return await stream.end()

    async def transcriptions(self, request: web.Request) -> web.Response:
        """Count the bytes of an audio file."""
        size = 0
        async for data in request.content.iter_any():
            size += len(data)
        return reply({"text": f"{size} simulated bytes"}, native=False)


def runner_options(body: dict[str, Any]) -> dict[str, Any]:
    """Return what a model is loaded with, besides its name (``api/types.go``)."""
    given = body.get("options") or {}
    chosen = {key: given[key] for key in _RUNNER_OPTIONS if given.get(key) is not None}
    return chosen | ({"shift": body["shift"]} if "shift" in body else {})


def _keep_alive_s(body: dict[str, Any]) -> float | None:
    if body.get("keep_alive") is None:
        return None
    return go_duration_s(msgspec.json.encode(body["keep_alive"]))


def decide(
    body: dict[str, Any], options: dict[str, Any] | None, wanted: object
) -> Chat:
    """Decide the answer: a call if there are tools and a person asks, else words."""
    messages = body.get("messages") or [{}]
    asked = messages[-1].get("role") == "user"
    tools = body.get("tools") or []
    call = tool_call(tools) if tools and asked else None
    thinking = ["Let", " me", " simulate", " that."] if body.get("think") else []
    return Chat([] if call else words(options, wanted), thinking, call)


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


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(text) for text in value] if isinstance(value, list) else []


def _usage(tokens: list[str]) -> dict[str, int]:
    count = len(tokens)
    return {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}


def _openai_options(body: dict[str, Any]) -> dict[str, Any]:
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    return {"num_predict": limit}


def _openai_calls(call: dict[str, Any] | None) -> list[dict[str, Any]]:
    if call is None:
        return []
    function = {"name": call["name"], "arguments": tool_arguments(call)}
    return [{"id": "call_1", "index": 0, "type": "function", "function": function}]


def _delta(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason}


def _openai_unknown(body: dict[str, Any]) -> web.Response:
    return openai_error(404, f"model '{model_name(body)}' not found")
