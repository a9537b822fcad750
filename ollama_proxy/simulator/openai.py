"""Serve the simulator's inference routes in OpenAI's shapes, but `Responses`."""

import base64
import struct
from typing import Any

from aiohttp import web

from ollama_proxy.simulator.inference import Inference, decide, texts_of
from ollama_proxy.simulator.refusals import unknown_model
from ollama_proxy.simulator.requests import model_name, read_json
from ollama_proxy.simulator.wire import SSE, reply, sse
from ollama_proxy.simulator.words import embedding, tool_arguments, words


class OpenAi:
    """Answers as OpenAI does: chunks as server-sent events, ``[DONE]`` at the end."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this part."""
        return [
            web.post("/v1/chat/completions", self.chat_completions),
            web.post("/v1/completions", self.completions),
            web.post("/v1/embeddings", self.openai_embeddings),
            web.post("/v1/audio/transcriptions", self.transcriptions),
        ]

    async def openai_embeddings(self, request: web.Request) -> web.Response:
        """Embed as OpenAI does, as numbers or base64."""
        body = await read_json(request)
        if await self._inference.loaded(body) is None:
            return unknown_model(body)
        data = []
        for index, text in enumerate(texts_of(body.get("input"))):
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
        if await self._inference.loaded(body) is None:
            return unknown_model(body)
        chat = decide(body, _openai_options(body), body.get("response_format"))
        head = self._openai_head(body, "chat.completion")
        calls = _openai_calls(chat.call)
        reason = "tool_calls" if calls else "stop"
        if not body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": ""}
            if calls:
                message["tool_calls"] = calls
            else:
                paced = self._inference.paced(chat.tokens)
                message["content"] = "".join([token async for token in paced])
            choice = {"index": 0, "message": message, "finish_reason": reason}
            return reply(
                head | {"choices": [choice], "usage": _usage(chat.tokens)}, native=False
            )
        head["object"] = "chat.completion.chunk"
        stream = self._inference.stream(request, SSE)
        delta: dict[str, Any] = {"role": "assistant", "content": ""}
        if calls:
            delta["tool_calls"] = calls
            await stream.event(head | {"choices": [_delta(delta, None)]})
        async for token in self._inference.paced(chat.tokens):
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
            "id": self._inference.new_id(prefix),
            "object": kind,
            "created": int(self._inference.now()),
            "model": model_name(body),
            "system_fingerprint": "fp_ollama",
        }

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Complete a prompt as OpenAI does."""
        body = await read_json(request)
        if await self._inference.loaded(body) is None:
            return unknown_model(body)
        tokens = words(_openai_options(body), None)
        head = self._openai_head(body, "text_completion", "cmpl-")
        if not body.get("stream"):
            text = "".join([token async for token in self._inference.paced(tokens)])
            choice = {"text": text, "index": 0, "finish_reason": "stop"}
            return reply(
                head | {"choices": [choice], "usage": _usage(tokens)}, native=False
            )
        stream = self._inference.stream(request, SSE)
        async for token in self._inference.paced(tokens):
            choice = {"text": token, "index": 0, "finish_reason": None}
            await stream.event(head | {"choices": [choice]})
        choice = {"text": "", "index": 0, "finish_reason": "stop"}
        await stream.send(sse(head | {"choices": [choice]}) + b"data: [DONE]\n\n")
        return await stream.end()

    async def transcriptions(self, request: web.Request) -> web.Response:
        """Count the bytes of an audio file."""
        size = 0
        async for data in request.content.iter_any():
            size += len(data)
        return reply({"text": f"{size} simulated bytes"}, native=False)


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
