"""Requests as clients send them: every route, and most ways to get them wrong."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

MODEL = "tiny"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
SHORT = {"num_predict": 4, "seed": 1, "temperature": 0}
BLOB = b"some bytes of a model"
DIGEST = hashlib.sha256(BLOB).hexdigest()
ABSENT = "0" * 64
READS = ("/", "/api/version", "/api/tags", "/api/ps", "/v1/models", "/v1/models/tiny")
MISSING = (
    "/nowhere",
    "/api/nowhere",
    "/v1",
    "/v1/models/nope",
    "/v1/models/a/b",
    "/v1/models/hf.co%2Fa%2Fb",
    "/API/tags",
    "/favicon.ico",
    "/v1/images/generations",
    "/v1/messages/count_tokens",
    "/api/tags/",
    "/api/show/",
    "//api/tags",
    "/api//tags?x=1",
)
POSTS = (
    "/api/show",
    "/api/generate",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/api/copy",
    "/api/pull",
    "/api/create",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
)
BROKEN = (b"", b"{", b"hello", b"[]", b'{"model":5}', b'{"model":"nope"}', b"{}")


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request. ``chunked`` sends the body without a length."""

    name: str
    method: str
    target: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False

    def raw(self, *, close: bool) -> bytes:
        """Return the request as bytes."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: localhost:11434"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += ["Connection: close"] if close else []
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif self.body or self.method in {"POST", "PUT", "DELETE"}:
            lines.append(f"Content-Length: {len(self.body)}")
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        if not self.chunked:
            return head + self.body
        half = len(self.body) // 2
        parts = [self.body[:half], self.body[half:]]
        framed = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts if p)
        return head + framed + b"0\r\n\r\n"


def _json(path: str, body: object, **headers: str) -> Recorded:
    raw = json.dumps(body).encode()
    return Recorded(f"{path} {raw.decode()[:60]}", "POST", path, raw, headers)


def _reads() -> Iterator[Recorded]:
    for path in READS:
        for method in ("GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS"):
            yield Recorded(f"{method} {path}", method, path)
    for path in MISSING:
        for method in ("GET", "HEAD", "POST"):
            yield Recorded(f"{method} {path}", method, path)


def _good() -> Iterator[Recorded]:
    prompt = {"model": MODEL, "prompt": "hi", "options": SHORT}
    for stream in (True, False):
        yield _json("/api/generate", prompt | {"stream": stream})
        yield _json("/api/chat", CHAT | {"options": SHORT, "stream": stream})
        greedy = {"max_tokens": 4, "temperature": 0, "stream": stream}
        yield _json("/v1/chat/completions", CHAT | greedy)
        yield _json("/v1/completions", {"model": MODEL, "prompt": "hi"} | greedy)
        yield _json("/v1/messages", CHAT | greedy)
        response = {"model": MODEL, "input": "hi", "max_output_tokens": 4}
        response |= {"temperature": 0}
        yield _json("/v1/responses", response | {"stream": stream})
    yield _json("/v1/messages?beta=true", CHAT | {"max_tokens": 4, "temperature": 0})
    yield _json("/api/generate", {"model": MODEL})
    yield _json("/api/chat", {"model": MODEL, "messages": []})
    yield _json("/api/show", {"model": MODEL})
    yield _json("/api/show", {"name": MODEL, "verbose": True})
    yield _json("/api/show", {"model": "nope"})
    yield _json("/api/embed", {"model": "nope", "input": "a"})


def _broken() -> Iterator[Recorded]:
    for path in POSTS:
        for body in BROKEN:
            yield Recorded(f"{path} {body!r}", "POST", path, body)


def _odd() -> Iterator[Recorded]:
    body = json.dumps({"model": MODEL}).encode()
    yield Recorded("chunked body", "POST", "/api/show", body, chunked=True)
    yield Recorded("unknown headers", "GET", "/api/version", headers={"X-Mine": "1"})
    yield Recorded("a key", "GET", "/api/tags", headers={"Authorization": "Bearer x"})
    yield Recorded("a query", "GET", "/api/version?ts=1&x=%20y")
    yield Recorded("body on GET", "GET", "/api/version", b"{}")
    for digest in (f"sha256:{ABSENT}", f"sha256-{ABSENT}", "zz"):
        yield Recorded(f"HEAD blob {digest[:12]}", "HEAD", f"/api/blobs/{digest}")
    wrong = f"/api/blobs/sha256:{ABSENT}"
    yield Recorded("blob mismatch", "POST", wrong, BLOB)
    right = f"/api/blobs/sha256:{DIGEST}"
    yield Recorded("blob stored", "POST", right, BLOB)
    yield Recorded("blob there", "HEAD", right)
    yield Recorded("blob again, chunked", "POST", right, BLOB, chunked=True)


def recorded() -> list[Recorded]:
    """Return every request, in an order in which they may be sent."""
    return [*_reads(), *_good(), *_broken(), *_odd()]
