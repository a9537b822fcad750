"""Serve the simulator's ``/v1/messages``."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from aiohttp import web

from ollama_proxy.simulator.inference import Chat, Inference, decide
from ollama_proxy.simulator.refusals import anthropic_error
from ollama_proxy.simulator.requests import model_name, read_json
from ollama_proxy.simulator.wire import SSE, Stream, reply
from ollama_proxy.simulator.words import tool_arguments


class Messages:
    """Answers as Anthropic does: blocks of thinking, then of text or of a call."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this part."""
        return [web.post("/v1/messages", self.messages)]

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """Answer as Anthropic does."""
        body = await read_json(request)
        if await self._inference.loaded(body) is None:
            return anthropic_error(404, f"model '{model_name(body)}' not found")
        chat = decide(_native(body), {"num_predict": body.get("max_tokens", 0)}, None)
        head: dict[str, Any] = {
            "id": self._inference.new_id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": model_name(body),
            "content": [],
            "usage": {"input_tokens": 1, "output_tokens": 0},
        }
        reason = "tool_use" if chat.call else "end_turn"
        usage = {"input_tokens": 1, "output_tokens": len(chat.tokens)}
        if not body.get("stream"):
            content = [block async for block in self._whole(chat)]
            end = {"content": content, "stop_reason": reason, "usage": usage}
            return reply(head | end, native=False)
        stream = self._inference.stream(request, SSE)
        await _send(stream, "message_start", {"message": head})
        for index, (block, kind, pieces) in enumerate(self._blocks(chat)):
            start = {"index": index, "content_block": block}
            await _send(stream, "content_block_start", start)
            async for piece in self._inference.paced(pieces):
                delta = {"type": f"{kind}_delta", _DELTA_KEYS[kind]: piece}
                change = {"index": index, "delta": delta}
                await _send(stream, "content_block_delta", change)
            await _send(stream, "content_block_stop", {"index": index})
        end = {"delta": {"stop_reason": reason}, "usage": usage}
        await _send(stream, "message_delta", end)
        await _send(stream, "message_stop", {})
        return await stream.end()

    async def _whole(self, chat: Chat) -> AsyncIterator[dict[str, Any]]:
        """Yield each block of an answer that comes at once."""
        for block, kind, pieces in self._blocks(chat):
            said = "".join([piece async for piece in self._inference.paced(pieces)])
            if chat.call and kind == "input_json":
                yield block | {"input": chat.call["arguments"]}
            else:
                yield block | {kind: said}

    def _blocks(self, chat: Chat) -> Iterator[tuple[dict[str, Any], str, list[str]]]:
        """Yield each block as it begins, the kind of its pieces, and these."""
        if chat.thinking:
            block = {"type": "thinking", "thinking": "", "signature": ""}
            yield block, "thinking", chat.thinking
        if chat.call:
            use = {"type": "tool_use", "id": self._inference.new_id("toolu_")}
            named = {"name": chat.call["name"], "input": {}}
            yield use | named, "input_json", [tool_arguments(chat.call)]
        else:
            yield {"type": "text", "text": ""}, "text", chat.tokens


_DELTA_KEYS = {"thinking": "thinking", "input_json": "partial_json", "text": "text"}


def _native(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body with Anthropic's wish to think in Ollama's word."""
    wish = body.get("thinking") or {}
    return body | {"think": wish.get("type") == "enabled"}


async def _send(stream: Stream, name: str, value: dict[str, Any]) -> None:
    await stream.event({"type": name} | value, name)
