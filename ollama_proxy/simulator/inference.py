"""Decide what the simulator answers, and pace it; the families give it a shape."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from ollama_proxy.core.ollama.durations import go_duration_s
from ollama_proxy.simulator.faults import requested
from ollama_proxy.simulator.models import Model
from ollama_proxy.simulator.requests import model_name
from ollama_proxy.simulator.state import Simulator
from ollama_proxy.simulator.wire import Stream
from ollama_proxy.simulator.words import tool_call, words


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
    """Generates words at a set rate, for the routes of each family."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._number = 0

    def now(self) -> float:
        """Return the time, in epoch seconds."""
        return self._simulator.now()

    async def loaded(self, body: dict[str, Any]) -> Model | None:
        """Return the model of a request once it is in memory; None if unknown."""
        model = self._simulator.store.get(model_name(body))
        if model is not None:
            await self._simulator.store.load(model, runner_options(body))
            self._simulator.store.keep(model, keep_alive_s(body))
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

    def unload(self, body: dict[str, Any]) -> bool:
        """Take the model of a request out of memory; False if it is unknown."""
        model = self._simulator.store.get(model_name(body))
        if model is not None:
            self._simulator.store.unload(model)
        return model is not None


def runner_options(body: dict[str, Any]) -> dict[str, Any]:
    """Return what a model is loaded with, besides its name (``api/types.go``)."""
    given = body.get("options") or {}
    chosen = {key: given[key] for key in _RUNNER_OPTIONS if given.get(key) is not None}
    return chosen | ({"shift": body["shift"]} if "shift" in body else {})


def keep_alive_s(body: dict[str, Any]) -> float | None:
    """Return how long a request wants its model kept; None if it does not say."""
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


def texts_of(value: object) -> list[str]:
    """Return the texts to embed: one, or a list."""
    if isinstance(value, str):
        return [value]
    return [str(text) for text in value] if isinstance(value, list) else []
