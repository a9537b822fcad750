"""What a request costs grows with its size and no faster, whatever is in it."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.core.http.request_head import MAX_TARGET
from ollama_proxy.server.machine_hosts import hosts_of_this_machine
from tests.fakes.raw_upstream import patient_upstream
from tests.proxy import RunningProxy, running_proxy

SIZE = 50_000
TIMES = 4
SQUARED = 10  # a cost that grows with the square grows 16-fold
FREE_S = 0.15  # of noise; what is squared takes seconds
BODY = b'{"model":"tiny","prompt":"x"}'
PATHS = (
    b"/api/generate",
    b"/api/chat",
    b"/api/show",
    b"/api/embed",
    b"/api/pull",
    b"/api/create",
    b"/api/copy",
    b"/v1/chat/completions",
    b"/v1/completions",
    b"/v1/embeddings",
    b"/v1/messages",
    b"/v1/responses",
)


def get(target: bytes, *fields: bytes, method: bytes = b"GET") -> bytes:
    head = [b"%b %b HTTP/1.1" % (method, target), b"Host: localhost"]
    return b"\r\n".join([*head, b"Connection: close", *fields, b"", b""])


def post(path: bytes, body: bytes, *fields: bytes) -> bytes:
    length = b"Content-Length: %d" % len(body)
    return get(path, length, *fields, method=b"POST") + body


def heads(n: int) -> Iterator[tuple[str, bytes]]:
    """Yield requests with ``n`` bytes in the head; a target has a bound of its own."""
    slashes = min(n, MAX_TARGET - 20) * b"/"
    few = range(n // 25)
    yield "slashes", get(slashes)
    yield "slashes of a pull", get(b"/-/pulls" + slashes, method=b"DELETE")
    yield "segments", get(b"/a" * (len(slashes) // 2))
    yield "dots", get(b"/a/.." * (len(slashes) // 5))
    yield "percent signs", get(b"/%2e%2f" * (len(slashes) // 7))
    yield "query", get(b"/api/tags?" + b"a=%41&" * (len(slashes) // 7))
    yield "host", get(b"/").replace(b"localhost", b"a" * n)
    yield "address", get(b"/").replace(b"localhost", b"[%b]" % (b"1:" * (n // 2)))
    yield "zone", get(b"/").replace(b"localhost", b"[::1%%%b]" % (b"a" * n))
    yield "digits", get(b"/").replace(b"localhost", b"1." * (n // 2))
    yield "origin", get(b"/", b"Origin: http://localhost:" + b"a" * n)
    yield "foreign origin", get(b"/", b"Origin: " + b"http://" * (n // 7))
    yield "preferences", post(PATHS[0], BODY, b"Prefer: " + b"a;," * (n // 3))
    yield "preferred digits", post(PATHS[0], BODY, b"Prefer: wait=" + b"0" * n)
    yield "many preferences", post(PATHS[0], BODY, *(b"Prefer: a%d" % i for i in few))
    yield "named headers", post(PATHS[0], BODY, b"Connection: " + b"a," * (n // 2))
    yield "names", post(PATHS[0], BODY, *(b"Connection: h%d" % i for i in few))
    yield "many headers", post(PATHS[0], BODY, *(b"h%d: x" % i for i in few))
    yield "one header often", post(PATHS[0], BODY, *(b"h: x" for i in few))
    few_each = range(n // 50)
    behind = [*(b"h: x" for _ in few_each), *(b"User-Agent: x" for _ in few_each)]
    yield "headers that come once, often", post(PATHS[0], BODY, *behind)
    yield "name of a header", post(PATHS[0], BODY, b"a" * n + b": x")
    yield "header", post(PATHS[0], BODY, b"X:" + b" \t" * (n // 2))
    yield "expectations", post(PATHS[0], BODY, b"Expect: " + b", " * (n // 2))
    yield "type", post(PATHS[0], BODY, b"Content-Type: a/b" + b"; a=b" * (n // 5))
    yield "cookie", get(b"/", b'Cookie: a="' + b"\\" * n)
    yield "agent", get(b"/", b"User-Agent: " + b"a/b " * (n // 4))
    yield "codings", post(PATHS[0], BODY, b"Content-Encoding: " + b"a," * (n // 2))


def bodies(n: int) -> Iterator[tuple[str, bytes]]:
    """Yield bodies of ``n`` bytes."""
    ask = b'{"model":"tiny","prompt":"",'
    yield "lists", b"[" * n
    yield "objects", b'{"a":' * (n // 5)
    yield "nested", b'{"model":"tiny","messages":' + b"[" * n + b"]" * n + b"}"
    yield "model", b'{"model":"%b"}' % (b"a" * n)
    yield "slashes in a model", b'{"model":"%b"}' % (b"/" * n)
    yield "tags in a model", b'{"model":"%b"}' % (b":cloud" * (n // 6))
    yield "escapes in a model", b'{"model":"%b"}' % (b"\\u00e4" * (n // 6))
    yield "half characters", b'{"model":"%b"}' % (b"\\ud800" * (n // 6))
    yield "no UTF-8", b'{"model":"%b"}' % (b"\xff" * n)
    yield "digits of a time", ask + b'"keep_alive":"%b"}' % (b"1" * n)
    yield "times", ask + b'"keep_alive":"%b"}' % (b"1h" * (n // 2))
    yield "times without units", ask + b'"keep_alive":"%b"}' % (b"1.1" * (n // 3))
    yield "number of a time", ask + b'"keep_alive":%b}' % (b"1" * n)
    yield "keys", ask + b",".join(b'"k%d":1' % i for i in range(n // 8)) + b"}"
    yield "the same key", ask + b",".join([b'"MODEL":"x"'] * (n // 12)) + b"}"
    yield "messages", ask + b'"messages":[' + b'{"role":"user"},' * (n // 16) + b"{}]}"
    yield "quotes", ask + b'"messages":["' + b'\\"' * (n // 2)
    yield "blanks", b" " * n
    yield "digits", b'{"a":' + b"1" * n + b"e"
    yield "minus", b'{"a":' + b"-" * n
    yield "an image", ask + b'"images":["' + b"A" * n + b'!"]}'
    yield "tools", ask + b'"tools":[' + b'{"type":"function"},' * (n // 20) + b"{}]}"


async def took_s(proxy: RunningProxy, request: bytes) -> float:
    """Return how much of the processor's time a request took."""
    begun = time.process_time()
    await proxy.raw(request)
    return time.process_time() - begun


async def squared(proxy: RunningProxy, paths: Sequence[bytes]) -> list[str]:
    """Return which requests cost more than their size explains."""
    found = []
    small, large = dict(heads(SIZE)), dict(heads(TIMES * SIZE))
    for path in paths:
        for field in (b"Accept: x", b"Prefer: wait=0"):
            for n, made in ((SIZE, small), (TIMES * SIZE, large)):
                name = f"{path.decode()} {field.decode()}"
                made |= {
                    f"{name}, {kind}": post(path, body, field)
                    for kind, body in bodies(n)
                }
    for name, request in small.items():
        first = await took_s(proxy, request)
        second = await took_s(proxy, large[name])
        if second > SQUARED * first + FREE_S:
            found.append(f"{name}: {first:.3f} s, {TIMES} times as much {second:.3f} s")
    return found


@pytest.mark.usefixtures("no_collector")
async def test_no_request_costs_more_than_its_size_explains(tmp_path: Path) -> None:
    async with running_proxy(
        tmp_path,
        backend=StaticBackend("http://127.0.0.1:1"),
        hosts=hosts_of_this_machine(),
    ) as proxy:
        found = await squared(proxy, PATHS)

    assert not found, "\n".join(found)


@pytest.mark.usefixtures("no_collector")
async def test_no_relayed_request_costs_more_than_its_size_explains(
    tmp_path: Path,
) -> None:
    async with (
        patient_upstream() as upstream,
        running_proxy(
            tmp_path,
            backend=StaticBackend(upstream.url),
            hosts=hosts_of_this_machine(),
        ) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        found = await squared(proxy, [b"/api/chat", b"/v1/messages"])

    assert not found, "\n".join(found)
