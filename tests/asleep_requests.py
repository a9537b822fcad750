"""Requests to an Ollama that has no model: what it answers needs none."""

import json
from collections.abc import Iterator
from typing import Any

from tests.recorded import ABSENT, Recorded

USER = [{"role": "user", "content": "hi"}]
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": 5}}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
LONG = "a" * 81


def _inference() -> Iterator[tuple[str, Any]]:
    yield "/api/generate", {}
    yield "/api/generate", {"name": "m", "prompt": "hi"}
    yield "/api/generate", {"model": "  "}
    yield "/api/generate", {"model": "a/b/c/d/e", "prompt": "hi"}
    yield "/api/generate", {"model": "https://example.com/a/b/c", "prompt": "hi"}
    yield "/api/generate", {"model": LONG}
    yield "/api/generate", {"model": "m:cloud:local"}
    yield "/api/generate", {"model": "<m> & 'n'"}
    yield "/api/generate", {"model": "m", "keep_alive": "soon"}
    yield "/api/generate", {"model": "m", "keep_alive": "5"}
    yield "/api/generate", {"model": "m", "keep_alive": True}
    yield "/api/generate", {"model": "m", "keep_alive": []}
    yield "/api/generate", {"model": "m", "options": []}
    yield "/api/generate", {"model": "m", "options": "x"}
    yield "/api/generate", {"model": "m", "images": ["not base64!"]}
    yield "/api/generate", {"model": "m", "images": [5]}
    yield "/api/generate", {"model": "m", "think": "very"}
    yield "/api/generate", {"model": "m", "think": 1}
    yield "/api/generate", {"model": "m", "top_logprobs": 21}
    yield "/api/generate", {"model": "a//b", "top_logprobs": -1}
    yield "/api/generate", {"model": "m", "context": ["x"]}
    yield "/api/generate", {"model": "m", "stream": "yes"}
    yield "/api/generate", {"model": "m", "raw": 1, "prompt": []}
    yield "/api/generate", {"model": "m", "Model": 5}
    yield "/api/chat", {"messages": USER}
    yield "/api/chat", {"model": "-m", "messages": USER}
    yield "/api/chat", {"model": "m", "messages": "hi"}
    yield "/api/chat", {"model": "m", "messages": ["hi"]}
    yield "/api/chat", {"model": "m", "messages": [{"role": 5}]}
    yield "/api/chat", {"model": "m", "messages": [{"images": ["a"]}]}
    yield "/api/chat", {"model": "m", "tools": {}}
    yield "/api/chat", {"model": "m", "tools": [FUNCTION]}
    yield (
        "/api/chat",
        {
            "model": "m",
            "messages": [{"tool_calls": [{"function": {"arguments": "{}"}}]}],
        },
    )
    yield "/api/chat", {"model": "m", "keep_alive": "1h99999999999h"}
    yield "/api/embed", {"input": "a"}
    yield "/api/embed", {"model": "m", "input": 5}
    yield "/api/embed", {"model": "m", "input": {}}
    yield "/api/embed", {"model": "m", "input": ["a", 5]}
    yield "/api/embed", {"model": "m", "input": False}
    yield "/api/embed", {"model": "m", "dimensions": "x"}
    yield "/api/embeddings", {"prompt": "a"}
    yield "/api/embeddings", {"model": "a b", "prompt": "a"}
    yield "/api/embeddings", {"model": "m", "prompt": ["a"]}


def _store() -> Iterator[tuple[str, Any]]:
    yield "/api/show", {}
    yield "/api/show", {"model": "a/b/c/d/e"}
    yield "/api/show", {"name": "a:cloud:local"}
    yield "/api/show", {"model": "m", "verbose": "x"}
    yield "/api/show", {"model": "absent"}
    yield "/api/pull", {}
    yield "/api/pull", {"model": "a/b/c/d/e"}
    yield "/api/pull", {"model": "m", "stream": 1}
    yield "/api/pull", {"name": 5}
    yield "/api/pull", {"model": "m:cloud:cloud"}
    yield "/api/push", {}
    yield "/api/push", {"model": 5}
    yield "/api/create", {}
    yield "/api/create", {"model": "x"}
    yield "/api/create", {"model": "x", "stream": False}
    yield "/api/create", {"model": "x", "files": {}}
    yield "/api/create", {"model": "x", "from": "a//b"}
    yield "/api/create", {"model": "x", "files": {"../a": "sha256:0"}}
    yield "/api/create", {"model": "x", "files": {"a": ""}}
    yield "/api/create", {"model": "x", "from": "m", "adapters": {"a": ""}}
    yield "/api/create", {"model": "x", "from": "m", "draft_quantize": "q4"}
    yield "/api/create", {"model": "a b", "from": "m"}
    yield "/api/create", {"model": "x", "messages": [5]}
    yield "/api/copy", {}
    yield "/api/copy", {"source": "m"}
    yield "/api/copy", {"source": "m", "destination": "a/b/c/d/e"}
    yield "/api/copy", {"source": ["m"]}


def _openai() -> Iterator[tuple[str, Any]]:
    chat: str = "/v1/chat/completions"
    said: dict[str, Any] = {"model": "m", "messages": USER}
    yield chat, {"model": "m", "messages": []}
    yield chat, {"messages": USER}
    yield chat, {"model": "a/b/c/d/e", "messages": USER}
    yield chat, {"model": "a/b/c/d/e", "messages": USER, "stream": True}
    yield chat, said | {"max_tokens": "many"}
    yield chat, said | {"temperature": "hot"}
    yield chat, said | {"stream": "yes"}
    yield chat, said | {"reasoning_effort": "huge"}
    yield chat, said | {"top_logprobs": 50}
    yield chat, said | {"tools": [FUNCTION]}
    yield chat, {"model": "m", "messages": [{"role": "user"}]}
    yield chat, {"model": "m", "messages": [{"role": "user", "content": 5}]}
    yield chat, {"model": "m", "messages": [{"role": "user", "content": ["hi"]}]}
    yield chat, {"model": "m", "messages": [{"content": [{"type": "video"}]}]}
    for url in ("http://x/y.png", "data:image/gif;base64,AA", "data:;base64,!", 5):
        part: dict[str, Any] = {"type": "image_url", "image_url": {"url": url}}
        yield chat, {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    for audio in (5, {}, {"data": "!"}):
        part = {"type": "input_audio", "input_audio": audio}
        yield chat, {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    yield chat, {"model": "m", "messages": [{"content": "", "tool_calls": [CALL]}]}
    yield "/v1/completions", {"prompt": "hi"}
    yield "/v1/completions", {"model": "m", "prompt": ["hi"]}
    yield "/v1/completions", {"model": "m", "stop": ["a", 5]}
    yield "/v1/completions", {"model": "m", "logprobs": 30}
    yield "/v1/completions", {"model": "m", "temperature": 1e39}
    yield "/v1/embeddings", {"model": "m"}
    yield "/v1/embeddings", {"model": "m", "input": []}
    yield "/v1/embeddings", {"model": "m", "input": 5}
    yield "/v1/embeddings", {"model": "m", "input": [1, 2]}
    yield "/v1/embeddings", {"model": "", "input": "a"}
    yield "/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "hex"}


def _responses() -> Iterator[tuple[str, Any]]:
    yield "/v1/responses", {"input": "hi"}
    yield "/v1/responses", {"model": "m", "input": 5}
    yield "/v1/responses", {"model": "m", "input": ["hi"]}
    yield "/v1/responses", {"model": "m", "input": [{}]}
    yield "/v1/responses", {"model": "m", "input": [{"type": "picture"}]}
    for content in (5, [{"type": "x"}], [{"type": "input_file"}], [5]):
        yield (
            "/v1/responses",
            {"model": "m", "input": [{"role": "user", "content": content}]},
        )
    yield (
        "/v1/responses",
        {"model": "m", "input": [{"type": "function_call", "arguments": "{"}]},
    )
    yield (
        "/v1/responses",
        {"model": "m", "input": "hi", "reasoning": {"effort": "huge"}},
    )
    yield (
        "/v1/responses",
        {
            "model": "m",
            "input": "hi",
            "tools": [{"type": "function", "parameters": SCHEMA}],
        },
    )
    yield "/v1/responses", {"model": "a//b", "input": "hi", "stream": True}


def _anthropic() -> Iterator[tuple[str, Any]]:
    messages: str = "/v1/messages"
    asked: dict[str, Any] = {"model": "m", "max_tokens": 1, "messages": USER}
    yield messages, {}
    yield messages, asked | {"max_tokens": 0}
    yield messages, asked | {"max_tokens": -1}
    yield messages, {"model": "m", "messages": USER}
    yield messages, asked | {"messages": []}
    yield messages, asked | {"messages": [{"role": "user"}]}
    yield messages, asked | {"messages": [{"role": "user", "content": 5}]}
    yield messages, asked | {"messages": [5]}
    for block in (
        {"type": "image"},
        {"type": "image", "source": {"type": "url", "url": "x"}},
        {"type": "image", "source": {"type": "base64", "data": "!"}},
        {"type": "tool_use", "name": "f"},
        {"type": "tool_use", "id": "f"},
        {"type": "tool_use", "id": "f", "name": "f", "input": "{}"},
        {"type": "tool_result", "content": [{"type": "image"}]},
    ):
        yield messages, asked | {"messages": [{"role": "user", "content": [block]}]}
    yield messages, asked | {"tools": [{"name": "f", "input_schema": SCHEMA}]}
    yield messages, asked | {"thinking": "yes"}
    yield messages, asked | {"model": "a//b", "stream": True}


def _routes() -> Iterator[Recorded]:
    for method, target in (
        ("GET", "/"),
        ("HEAD", "/"),
        ("POST", "/"),
        ("HEAD", "/api/tags"),
        ("GET", "/api/tags"),
        ("GET", "/api/ps"),
        ("HEAD", "/api/ps"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/absent"),
        ("GET", "/v1/models/a:b:c"),
        ("GET", "/v1/models/a%20b"),
        ("GET", "/v1/models/a/b"),
        ("GET", "/api/nowhere"),
        ("HEAD", "/api/nowhere"),
        ("GET", "/api/show"),
        ("GET", "/api/show/"),
        ("HEAD", "/api/show/"),
        ("POST", "/api/show/"),
        ("POST", "/api/tags/"),
        ("DELETE", "/api/tags"),
        ("DELETE", "/api/delete/"),
        ("GET", "/api/tags/?a=b&c=%3Cd%3E"),
        ("HEAD", "/api/tags/"),
        ("GET", "//api/tags"),
        ("HEAD", "//api/tags"),
        ("POST", "/api//show?x=1"),
        ("POST", "//api/chat/"),
        ("GET", "/api/./tags"),
        ("GET", "/api/x/../tags"),
        ("GET", "//nowhere"),
        ("GET", "//"),
        ("GET", "/."),
        ("GET", "/api/tags/."),
        ("GET", "/api/tags//?a=b"),
        ("GET", "/api/.."),
        ("POST", "/api/../../api/chat"),
        ("GET", "//v1/models/a%20b"),
        ("GET", "/v1/models/absent/"),
        ("GET", "/v1/models/a%20b/"),
        ("HEAD", "/v1/models/absent"),
        ("HEAD", "/api/blobs/x/"),
        ("GET", "/api/%74ags"),
        ("GET", "/api%2Ftags"),
        ("GET", "/%61pi/tags/"),
        ("GET", "/v1/models/hf.co%2Fa"),
        ("POST", "/api/%63opy/"),
        ("GET", "/?x=1"),
        ("GET", "/api/tags/?a='b'&c=\"d\""),
        ("POST", "/api//nowhere"),
        ("GET", "/API/tags"),
        ("PUT", "/api/chat"),
        ("PATCH", "/api/blobs/x"),
        ("OPTIONS", "/api/nowhere"),
        ("GET", "/api/blobs/x"),
        ("HEAD", "/api/blobs/x"),
        ("POST", "/api/blobs/x"),
        ("HEAD", f"/api/blobs/sha256:{ABSENT}"),
        ("HEAD", f"/api/blobs/sha256-{ABSENT}"),
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/models"),
        ("GET", "/v1"),
        ("GET", "/favicon.ico"),
    ):
        yield Recorded(f"{method} {target}", method, target)
    page = {"Origin": "http://localhost:3000"}
    wanted = page | {"Access-Control-Request-Method": "POST"}
    yield Recorded("a preflight", "OPTIONS", "/api/chat", headers=wanted)
    yield Recorded("a page's list", "GET", "/api/tags", headers=page)
    yield Recorded(
        "a foreign page", "GET", "/api/tags", headers={"Origin": "http://x.y"}
    )
    yield Recorded("a page's broken chat", "POST", "/api/chat", b"{", headers=page)
    for path in ("/api/chat", "/api/pull", "/v1/chat/completions", "/v1/messages"):
        yield Recorded(f"nothing to {path}", "POST", path)
        yield Recorded(f"broken {path}", "POST", path, b'{"model":"m",}')
        yield Recorded(f"a list to {path}", "POST", path, b"[]")
    for path in ("/api/chat", "/v1/chat/completions"):
        packed = {"Content-Encoding": "gzip"}
        yield Recorded(f"gzip to {path}", "POST", path, b"\x1f\x8b\x08", headers=packed)
    for body in (b"", b"{}", b'{"model":"a/b/c/d"}', b'{"name":"m:cloud:local"}'):
        yield Recorded(f"DELETE {body!r}", "DELETE", "/api/delete", body)
    yield Recorded(
        "a form",
        "POST",
        "/api/generate",
        b"model=m",
        {"Content-Type": "application/x-www-form-urlencoded"},
    )


def asleep_requests() -> list[Recorded]:
    """Return every request, in an order in which they may be sent."""
    bodies = [*_inference(), *_store(), *_openai(), *_responses(), *_anthropic()]
    sent = [(path, json.dumps(body)) for path, body in bodies]
    return [
        Recorded(f"POST {path} {text}", "POST", path, text.encode())
        for path, text in sent
    ] + list(_routes())
