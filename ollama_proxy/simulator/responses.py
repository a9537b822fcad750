"""Serve the simulator's ``/v1/responses``."""

from typing import Any

from aiohttp import web

from ollama_proxy.simulator.inference import Inference
from ollama_proxy.simulator.refusals import unknown_model
from ollama_proxy.simulator.requests import model_name, read_json
from ollama_proxy.simulator.wire import SSE, Stream, reply
from ollama_proxy.simulator.words import words


class Responses:
    """Answers as OpenAI's Responses API does: events that are named and numbered."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this part."""
        return [web.post("/v1/responses", self.responses)]

    async def responses(self, request: web.Request) -> web.StreamResponse:
        """Answer with one message of text."""
        body = await read_json(request)
        if await self._inference.loaded(body) is None:
            return unknown_model(body)
        tokens = words({"num_predict": body.get("max_output_tokens")}, None)
        item_id = self._inference.new_id("msg_")
        response = self._response(body)
        item = _item(item_id, tokens)
        count = len(tokens)
        usage = {"input_tokens": 1, "output_tokens": count, "total_tokens": count + 1}
        done = response | {"status": "completed", "output": [item], "usage": usage}
        if not body.get("stream"):
            _ = [token async for token in self._inference.paced(tokens)]
            return reply(done, native=False)
        events = _Events(self._inference.stream(request, SSE))
        await events.send("response.created", {"response": response})
        added = {"output_index": 0, "item": item | {"content": []}}
        await events.send("response.output_item.added", added)
        place = {"item_id": item_id, "output_index": 0, "content_index": 0}
        async for token in self._inference.paced(tokens):
            delta = {"delta": token} | place | {"logprobs": []}
            await events.send("response.output_text.delta", delta)
        await events.send("response.completed", {"response": done})
        return await events.stream.end()

    def _response(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the response before its first text."""
        return {
            "id": self._inference.new_id("resp_"),
            "object": "response",
            "created_at": int(self._inference.now()),
            "model": model_name(body),
            "status": "in_progress",
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }


class _Events:
    """Sends events that are numbered from zero."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._number = 0

    async def send(self, name: str, value: dict[str, Any]) -> None:
        """Send the next event."""
        event = {"type": name, "sequence_number": self._number} | value
        await self.stream.event(dict(sorted(event.items())), name)  # as Go writes maps
        self._number += 1


def _item(item_id: str, tokens: list[str]) -> dict[str, Any]:
    """Return the message that the whole of an answer is."""
    part = {"type": "output_text", "text": "".join(tokens), "annotations": []}
    head = {"type": "message", "id": item_id}
    return head | {"status": "completed", "role": "assistant", "content": [part]}
