"""Requests that Ollama takes: all that it misses is the model ``m``."""

import json
from collections.abc import Iterator
from typing import Any

from tests.recorded import Recorded

TEXT = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "$defs": {"a": 1},
    "additionalProperties": False,
    "required": ["a"],
    "properties": {
        "a": {"type": ["string", "null"], "enum": ["x", 1, None], "minLength": 1},
        "b": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/a"}], "items": {}},
        "c": {"type": "object", "properties": {"d": {"description": "e"}}},
        "f": None,
    },
}
FUNCTION = {"name": "f", "description": "does", "parameters": SCHEMA, "strict": True}
TOOL = {"type": "function", "function": FUNCTION}
PIXEL = "iVBORw0KGgo="


def _native() -> Iterator[tuple[str, str]]:
    for keep_alive in ('"5m"', "0", "-1", "1.5", '"1h30m0.5s"', "null", "1e3"):
        yield "/api/generate", f'{{"model":"m","keep_alive":{keep_alive}}}'
    for think in ("true", "false", '"high"', '"max"', "null"):
        yield "/api/chat", f'{{"model":"m","messages":[],"think":{think}}}'
    nulls = ("prompt", "stream", "options", "format", "images", "context", "raw")
    yield "/api/generate", json.dumps({"model": "m"} | dict.fromkeys(nulls))
    yield "/api/generate", '{"MODEL":"x","Model":"m","prompt":"\\ud83d"}'
    yield "/api/generate", '{"model":"m","images":["aGk=","aG\\nk=","aGl="]}'
    yield "/api/generate", '{"model":"m","format":{"type":"object"},"n":1,"x":[{}]}'
    yield "/api/generate", '{"model":"m","options":{"num_ctx":"x","stop":5}}'
    yield "/api/generate", '{"model":"m","context":[-1,9223372036854775807]}'
    yield "/api/generate", '{"model":"m"}{"model":5}'
    message = {"role": "User", "content": "x", "images": [PIXEL], "new": 1}
    call = {"function": {"name": "f", "index": 0, "arguments": {"a": [1, {}]}}}
    answer = {"role": "assistant", "tool_calls": [call | {"id": "c"}], "thinking": "t"}
    chat = {"model": "m", "messages": [message, answer, None, {}], "tools": [TOOL]}
    yield "/api/chat", json.dumps(chat)
    yield "/api/chat", json.dumps({"Model": "m", "Messages": [{"Role": "user"}]})
    for given in ("a", ["a", "b"], [], "", None):
        yield "/api/embed", json.dumps({"model": "m", "input": given})
    yield "/api/embed", '{"model":"m","input":"a","stream":"not looked at"}'
    yield "/api/embeddings", '{"model":"m","prompt":"a","keep_alive":"1m"}'
    yield "/api/show", '{"name":"m","verbose":true}'
    yield "/api/show", '{"model":"","name":"m:latest"}'
    yield "/api/copy", '{"source":"m","destination":"host:5000/a/b:c","x":1}'


def _openai() -> Iterator[tuple[str, Any]]:
    chat = {"model": "m", "messages": TEXT}
    yield "/v1/chat/completions", chat
    text = {"type": "text", "text": "hi"}
    image = {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{PIXEL}"},
    }
    bare = {"type": "image_url", "image_url": f"data:;base64,{PIXEL}"}
    audio = {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}
    parts = [{"role": "user", "content": [text, image, bare, audio]}]
    yield "/v1/chat/completions", chat | {"messages": parts}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
        {"role": "assistant", "tool_calls": []},
    ]
    yield "/v1/chat/completions", chat | {"messages": calls, "tools": [TOOL]}
    rest = {
        "stream": None,
        "stream_options": {"include_usage": True},
        "max_tokens": None,
        "max_completion_tokens": 5,
        "temperature": 1,
        "stop": ["a", 5],
        "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        "reasoning_effort": "xhigh",
        "reasoning": {"effort": "none"},
        "logprobs": True,
        "top_logprobs": 20,
        "tool_choice": {"type": "auto"},
        "n": 2,
        "user": 5,
        "logit_bias": {"1": 1},
        "store": True,
    }
    yield "/v1/chat/completions", chat | rest
    yield "/v1/completions", {"model": "m", "prompt": "a", "stop": "x", "logprobs": 2}
    yield "/v1/completions", {"model": "m", "prompt": None, "temperature": 0.5, "n": 2}
    for given in ("a", "", ["a"], [""]):
        yield "/v1/embeddings", {"model": "m", "input": given}
    yield "/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "BASE64"}


def _responses() -> Iterator[tuple[str, Any]]:
    yield "/v1/responses", {"model": "m", "input": "hi"}
    yield "/v1/responses", {"model": "m"}
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"}
    items = [
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "user", "content": [{"type": "input_text"}, image]},
        {"type": "message", "role": "assistant", "content": None},
        {"type": "reasoning", "summary": [{"type": "x", "text": "y"}], "content": [5]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"type": "function_call_output", "output": [{"type": "output_text"}]},
        {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
        {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]},
    ]
    tools = [
        {"type": "function", "name": "f", "parameters": SCHEMA, "strict": None},
        {"type": "namespace", "name": "n", "tools": [{"type": "function"}]},
    ]
    rest = {"reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}}}
    rest |= {"include": [], "truncation": "auto", "store": False, "tools": tools}
    yield "/v1/responses", {"model": "m", "input": items} | rest


def _anthropic() -> Iterator[tuple[str, Any]]:
    asked = {"model": "m", "max_tokens": 5, "messages": TEXT}
    yield "/v1/messages", asked
    cached = {"type": "ephemeral"}
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    blocks = [
        {"type": "text", "text": "hi", "cache_control": cached, "citations": None},
        {"type": "image", "source": source},
        {"type": "document", "source": source},
        {"type": "thinking", "thinking": "t", "signature": "s"},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
        {"type": "tool_result", "tool_use_id": "c", "content": "x"},
        {"type": "tool_result", "content": [{"type": "image", "source": source}, 5]},
    ]
    messages = [{"role": "user", "content": blocks}, {"role": "user", "content": None}]
    rest = {
        "system": [{"type": "text", "text": "be brief", "cache_control": cached}],
        "tools": [
            {"name": "f", "input_schema": SCHEMA, "cache_control": cached},
            {"type": "web_search_20250305", "name": "web_search", "input_schema": 5},
            {"name": "web_search", "input_schema": 5},
        ],
        "tool_choice": {"type": "auto"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "metadata": {"user_id": "u"},
        "stop_sequences": None,
        "context_management": {"edits": []},
        "output_config": {"effort": "max"},
    }
    yield "/v1/messages", asked | {"messages": messages} | rest


def taken_requests() -> list[Recorded]:
    """Return every request."""
    bodies = [*_openai(), *_responses(), *_anthropic()]
    texts = [*_native(), *((path, json.dumps(body)) for path, body in bodies)]
    return [
        Recorded(f"{at} {path}", "POST", path, text.encode())
        for at, (path, text) in enumerate(texts)
    ]
