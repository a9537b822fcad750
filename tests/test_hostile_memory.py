"""Whatever clients send, nothing of it is kept: dozens of large requests later too."""

import asyncio
import contextlib
import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.server.machine_hosts import hosts_of_this_machine
from tests.fakes.raw_upstream import patient_upstream
from tests.proxy import RunningProxy, running_proxy

REQUESTS = 40  # what is kept of each is twice what may be kept of all
SIZE = 500_000
MOST_KEPT = 10_000_000
BODY = b'{"model":"tiny","prompt":"hi"}'
HEAD = b"Host: localhost\r\nContent-Length: %d\r\n" % len(BODY)


def large(number: int) -> bytes:
    """Return half a megabyte that is like no other."""
    return b"%d" % number + b"a" * SIZE


def ask(fields: bytes = HEAD, *, target: bytes = b"/api/generate") -> bytes:
    return b"POST %b HTTP/1.1\r\n%bConnection: close\r\n\r\n%b" % (target, fields, BODY)


def plain(number: int, name: bytes, value: bytes) -> bytes:
    """Return a request that is served before aiohttp, if its size allows."""
    del number
    return ask(HEAD + b"%b: %b\r\n" % (name, value))


def behind(number: int, name: bytes, value: bytes) -> bytes:
    """Return a request that is served by aiohttp."""
    return plain(number, b"Prefer: wait=0\r\n" + name, value)


def model(number: int) -> bytes:
    body = b'{"model":"%b"}' % large(number)
    head = b"Host: localhost\r\nContent-Length: %d\r\n" % len(body)
    return (
        b"POST /api/show HTTP/1.1\r\n%bPrefer: wait=0\r\nConnection: close\r\n\r\n%b"
        % (head, body)
    )


KINDS: dict[str, Callable[[int], bytes]] = {
    "names of headers": lambda n: plain(n, b"X" + large(n), b"x"),
    "names of headers, behind": lambda n: behind(n, b"X" + large(n), b"x"),
    "agents": lambda n: plain(n, b"User-Agent", large(n)),
    "agents, behind": lambda n: behind(n, b"User-Agent", large(n)),
    "types": lambda n: plain(n, b"Content-Type", large(n)),
    "types, behind": lambda n: behind(n, b"Content-Type", b"a/" + large(n)),
    "origins": lambda n: plain(n, b"Origin", b"http://localhost:" + large(n)),
    "connections": lambda n: plain(n, b"Connection", large(n)),
    "hosts": lambda n: ask(HEAD.replace(b"localhost", large(n) + b".localhost")),
    "addresses": lambda n: ask(HEAD.replace(b"localhost", b"[::1%%%b]" % large(n))),
    "hosts of targets": lambda n: ask(target=b"http://%b/api/generate" % large(n)),
    "paths": lambda n: ask(target=b"/" + large(n)),
    "paths that move": lambda n: ask(target=b"//" + large(n)),
    "models of paths": lambda n: ask(target=b"/v1/models/" + large(n)),
    "queries": lambda n: ask(target=b"/api/generate?" + large(n)),
    "targets of 16 KB": lambda n: ask(target=b"/%%41%b" % large(n)[:16_000]),
    "models": model,
}


async def flood(proxy: RunningProxy, made: Callable[[int], bytes], first: int) -> None:
    """Send many large requests, some at a time."""

    async def send(number: int) -> None:
        with contextlib.suppress(ConnectionError):
            await proxy.raw(made(number))

    for at in range(first, first + REQUESTS, 10):
        await asyncio.gather(*(send(number) for number in range(at, at + 10)))


async def growth(proxy: RunningProxy, made: Callable[[int], bytes]) -> int:
    """Return how many bytes are kept of many large requests."""
    await proxy.raw(made(0))
    gc.collect()
    tracemalloc.start(1)
    try:
        await flood(proxy, made, 1)
        await asyncio.sleep(0.05)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_kept_of_large_requests_asleep(
    tmp_path: Path, kind: str
) -> None:
    async with running_proxy(
        tmp_path,
        backend=StaticBackend("http://127.0.0.1:1"),
        hosts=hosts_of_this_machine(),
    ) as proxy:
        assert await growth(proxy, KINDS[kind]) < MOST_KEPT


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_kept_of_large_requests_that_are_relayed(
    tmp_path: Path, kind: str
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
        assert await growth(proxy, KINDS[kind]) < MOST_KEPT
