"""Make up the simulator's words: the same for the same request, plainly made up."""

import hashlib
import json
from typing import Any

_TEXT = (
    "This is the ollama-proxy simulator: no model runs here and these words are made"
    " up. They come one by one, as tokens would, so that you can watch a stream."
    " Install Ollama, or name a cloud, and a real model answers instead."
)
DIMENSIONS = 32


def words(options: dict[str, Any] | None, wanted: object) -> list[str]:
    """Return the tokens of an answer; ``wanted`` is a JSON format, if any."""
    if wanted:
        return ["{", '"simulated"', ": ", "true", "}"]
    tokens = [f" {word}" for word in _TEXT.split()]
    tokens[0] = tokens[0].strip()
    limit = (options or {}).get("num_predict")
    if not isinstance(limit, int) or limit <= 0:
        return tokens
    return (tokens * (limit // len(tokens) + 1))[:limit]


def embedding(text: str) -> list[float]:
    """Return numbers that depend on the text alone, of length one."""
    digest = hashlib.sha256(text.encode()).digest()
    raw = [byte / 255.0 - 0.5 for byte in digest[:DIMENSIONS]]
    norm = sum(value * value for value in raw) ** 0.5 or 1.0
    return [round(value / norm, 7) for value in raw]


def tool_call(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a call of the first tool, with a value for each required argument."""
    function = tools[0].get("function", tools[0])
    schema = function.get("parameters") or function.get("input_schema") or {}
    arguments = dict.fromkeys(schema.get("required", []), "simulated")
    return {"name": function.get("name", ""), "arguments": arguments}


def tool_arguments(call: dict[str, Any]) -> str:
    """Return a call's arguments as OpenAI writes them: JSON in a string."""
    return json.dumps(call["arguments"], separators=(",", ":"))
