"""Measure one kind of load per function; each gives figures by name."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.client import Caller, Samples, Stream, get, post, quantile
from bench.proxies import (
    LITELLM_KEY,
    MOST_STREAMS,
    Running,
    free_port,
    process,
    running,
    upstream_command,
)

Figures = Mapping[str, float]

_CALLERS = 64
_GRACE_S = 20.0
_SLICE = bytes(1024 * 1024)
_CONNECTING = 200
_JOINED_S = 2.5
_FEWER = 8


@dataclass(frozen=True, slots=True)
class Load:
    """Says how much of everything. ``rate``: tokens per second and stream."""

    streams: int = 64
    tokens: int = 400
    rate: float = 50.0
    crowd: int = 1000
    small_s: float = 3.0
    open_streams: tuple[int, ...] = (2000, 10_000)
    asleep_rate: int = 5000
    asleep_s: float = 4.0
    upload: int = 2 * 1024**3
    line: int = 500 * 1000**2
    held_s: float = 3.0
    soak_s: float = 3600.0


SMOKE = Load(
    streams=8,
    tokens=20,
    crowd=50,
    small_s=0.3,
    open_streams=(100,),
    asleep_rate=500,
    asleep_s=0.5,
    upload=32 * 1024**2,
    line=16 * 1000**2,
    held_s=0.5,
    soak_s=3.0,
)
"""A little of everything, where only correctness counts."""


def ask(proxy: Running, tokens: int, rate: float) -> bytes:
    """Return the request for a stream."""
    prompt = f"{tokens} {rate}"
    if proxy.is_native:
        body = {"model": "bench", "prompt": prompt, "stream": True}
        return post("/api/generate", json.dumps(body).encode())
    message = {"role": "user", "content": prompt}
    body = {"model": "bench", "messages": [message], "stream": True}
    key = f"Authorization: Bearer {LITELLM_KEY}"
    return post("/v1/chat/completions", json.dumps(body).encode(), key)


async def _whole(streams: list[Stream], tokens: int, within_s: float) -> None:
    """See every stream end with all its tokens; raises if one does not."""
    async with asyncio.timeout(within_s):
        counts = await asyncio.gather(*(stream.done for stream in streams))
    if set(counts) != {tokens}:
        raise AssertionError(f"streams of {tokens} tokens had {sorted(set(counts))}")


async def tokens(proxy: Running, load: Load, rng: random.Random) -> Figures:
    """Streams that begin at drawn times, whatever becomes of the others.

    A proxy that encodes tokens anew can't keep up with all: it gets an eighth.
    """
    loop = asyncio.get_running_loop()
    samples: Samples = []
    request = ask(proxy, load.tokens, load.rate)
    begun, cpu_s = loop.time(), proxy.cpu_s()
    streams = []
    count = load.streams if proxy.is_native else max(1, load.streams // _FEWER)
    for at in sorted(rng.uniform(0, 1) for _ in range(count)):
        await asyncio.sleep(max(0.0, begun + at - loop.time()))
        streams.append(await Stream.open(proxy.port, request, samples))
    expected_s = load.tokens / load.rate
    await _whole(streams, load.tokens, expected_s * 4 + _GRACE_S)
    spent = proxy.cpu_s() - cpu_s
    return {
        "cpu_us_per_token": spent / len(samples) * 1e6,
        "token_p50_ms": quantile(samples, 0.50) / 1e6,
        "token_p99_ms": quantile(samples, 0.99) / 1e6,
    }


async def crowd(proxy: Running, load: Load, rng: random.Random) -> Figures:
    """Many streams at once: when each has its first token."""
    del rng
    samples: Samples = []
    request = ask(proxy, 2, 1.0)
    opening = [Stream.open(proxy.port, request, samples) for _ in range(load.crowd)]
    streams = await asyncio.gather(*opening)
    await _whole(streams, 2, _GRACE_S * 3)
    first = [stream.first_ns for stream in streams]
    return {
        "first_p50_ms": quantile(first, 0.50) / 1e6,
        "first_p99_ms": quantile(first, 0.99) / 1e6,
    }


async def small(
    proxy: Running, load: Load, rng: random.Random, *headers: str
) -> Figures:
    """Small requests on kept connections, each as soon as the last is answered."""
    del rng
    if not proxy.is_native:
        return {}
    body = b'{"model":"bench","input":"why is the sky blue"}'
    request = post("/api/embed", body, *headers)
    callers = [await Caller.open(proxy.port, b"200") for _ in range(_CALLERS // 2)]
    deadline = asyncio.get_running_loop().time() + load.small_s
    cpu_s, begun = proxy.cpu_s(), time.monotonic_ns()
    for caller in callers:
        caller.on_answer = partial(_again, caller, request, deadline)
        caller.call(request, begun)
    await asyncio.sleep(load.small_s + 0.1)
    _see_no_failure(callers)
    answered = sum(len(caller.samples) for caller in callers)
    spent = proxy.cpu_s() - cpu_s
    return {
        "requests_per_s": answered / load.small_s,
        "cpu_us_per_request": spent / answered * 1e6,
        "requests_per_cpu_s": answered / spent if spent else 0.0,
    }


def _again(caller: Caller, request: bytes, deadline: float) -> None:
    if caller.failure is None and asyncio.get_running_loop().time() < deadline:
        caller.call(request, time.monotonic_ns())


def _see_no_failure(callers: list[Caller]) -> None:
    for caller in callers:
        caller.close()
    _raise_failure(callers)


async def open_streams(proxy: Running, count: int) -> Figures:
    """Streams that are all open at once: what each takes of memory.

    As many as wanted, or as the limit of descriptors lets through.
    """
    wanted, count = count, min(count, MOST_STREAMS)
    before = proxy.memory()
    samples: Samples = []
    request = ask(proxy, 1000, 0.2)
    streams: list[Stream] = []
    for at in range(0, count, _CONNECTING):
        size = min(_CONNECTING, count - at)
        more = (Stream.open(proxy.port, request, samples) for _ in range(size))
        streams += await asyncio.gather(*more)
        await asyncio.sleep(0.05)
    deadline = asyncio.get_running_loop().time() + _GRACE_S * 3
    while any(not stream.first_ns for stream in streams):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError("some streams never had a token")
        await asyncio.sleep(0.1)
    used = proxy.memory() - before
    for stream in streams:
        stream.leave()
    await asyncio.sleep(1.0)
    return {
        f"kib_per_stream_of_{wanted}": used / count / 1024,
        f"streams_of_{wanted}": count,
    }


async def paced(port: int, request: bytes, status: bytes, load: Load) -> Samples:
    """Send requests at a fixed rate; lateness counts from when each was due."""
    callers = [await Caller.open(port, status) for _ in range(_CALLERS)]
    total = int(load.asleep_rate * load.asleep_s)
    step_ns = 1e9 / load.asleep_rate
    begun, sent = time.monotonic_ns(), 0
    while sent < total:
        due = int((time.monotonic_ns() - begun) / step_ns)
        for at in range(sent, min(due, total)):
            callers[at % _CALLERS].call(request, begun + int(at * step_ns))
        sent = max(sent, min(due, total))
        await asyncio.sleep(0.001)
    async with asyncio.timeout(_GRACE_S):
        while sum(len(caller.samples) for caller in callers) < total:
            _raise_failure(callers)
            await asyncio.sleep(0.01)
    _see_no_failure(callers)
    return [sample for caller in callers for sample in caller.samples]


def _raise_failure(callers: list[Caller]) -> None:
    for caller in callers:
        if caller.failure is not None:
            raise caller.failure


async def asleep(folder: Path, load: Load) -> Figures:
    """Measure answers without an instance: 503, and a list from memory."""
    generate = post("/api/generate", b'{"model":"bench","prompt":"hi"}')
    figures = {}
    async with running("ours", free_port(), folder / "asleep") as proxy:
        figures["idle_mib"] = proxy.memory() / 1024**2
        await paced(proxy.port, generate, b"503", SMOKE)
        await asyncio.sleep(_JOINED_S)  # `static` lets its first requests wait
        for name, request, status in (
            ("503", generate, b"503"),
            ("tags", get("/api/tags"), b"200"),
        ):
            figures |= await _asleep_figures(proxy, name, request, status, load)
    return figures


async def floor(proxy: Running, load: Load) -> Figures:
    """Measure answers by aiohttp alone, as often: the cost of its server by itself."""
    return await _asleep_figures(proxy, "floor", get("/floor"), b"200", load)


async def _asleep_figures(
    proxy: Running, name: str, request: bytes, status: bytes, load: Load
) -> Figures:
    cpu_s = proxy.cpu_s()
    samples = await paced(proxy.port, request, status, load)
    spent = proxy.cpu_s() - cpu_s
    return {
        f"asleep_{name}_p50_ms": quantile(samples, 0.50) / 1e6,
        f"asleep_{name}_p99_ms": quantile(samples, 0.99) / 1e6,
        f"asleep_{name}_cpu_us": spent / len(samples) * 1e6,
    }


async def ready(folder: Path, load: Load) -> Figures:
    """Measure from the upstream's first answer to the first byte of a held request."""
    port = free_port()
    async with running("ours", port, folder / "held") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        request = ask(proxy, 1, 1.0)
        writer.write(request.replace(b"\r\n", b"\r\nPrefer: wait=60\r\n", 1))
        await asyncio.sleep(load.held_s)
        async with process(upstream_command(port), folder / "late"):
            answers_at = await _answers(port)
            async with asyncio.timeout(_GRACE_S):
                await reader.readline()
            took = time.monotonic() - answers_at  # noqa: TID251 - measured
        writer.close()
    return {"ready_to_first_byte_ms": took * 1e3}


async def _answers(port: int) -> float:
    """Return the time at which a port first takes a connection."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return time.monotonic()  # noqa: TID251 - measured
        await asyncio.sleep(0.002)


async def large(proxy: Running, load: Load) -> Figures:
    """Pass a large upload and a very long line: how far memory grows meanwhile."""
    figures = {}
    async with _watched(proxy) as most:
        await _upload(proxy.port, load.upload)
    figures["upload_grows_mib"] = most() / 1024**2
    async with _watched(proxy) as most:
        await _download(proxy.port, load.line)
    figures["line_grows_mib"] = most() / 1024**2
    return figures


@contextlib.asynccontextmanager
async def _watched(proxy: Running) -> "AsyncIterator[_Most]":
    """Look at a proxy's memory meanwhile; yield how far it rose, in bytes."""
    most = _Most(proxy)

    async def look() -> None:
        while True:
            most.look()
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        looking = group.create_task(look())
        try:
            yield most
        finally:
            looking.cancel()


class _Most:
    def __init__(self, proxy: Running) -> None:
        self._proxy = proxy
        self._before = self._most = proxy.memory()

    def look(self) -> None:
        self._most = max(self._most, self._proxy.memory())

    def __call__(self) -> int:
        self.look()
        return self._most - self._before


async def _upload(port: int, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    path = f"/api/blobs/sha256:{'0' * 64}"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {size}\r\n\r\n".encode())
    for _ in range(size // len(_SLICE)):
        writer.write(_SLICE)
        await writer.drain()
    answer = await reader.read()
    writer.close()
    if b'{"taken":%d}' % size not in answer:
        raise AssertionError(f"an upload of {size} bytes was answered {answer!r}")


async def _download(port: int, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head_to_send = f"GET /long/{size} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    writer.write(f"{head_to_send}Connection: close\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    taken = 0
    while data := await reader.read(1024 * 1024):
        taken += len(data)
    writer.close()
    if taken != size:
        raise AssertionError(f"of {size} bytes {taken} came, after {head!r}")


async def soak(proxy: Running, load: Load, rng: random.Random) -> Figures:
    """Do the same again and again: how far memory is above where it was at first."""
    deadline = asyncio.get_running_loop().time() + load.soak_s
    await crowd(proxy, load, rng)
    await small(proxy, load, rng)
    first = proxy.memory()
    requests = 0.0
    while asyncio.get_running_loop().time() < deadline:
        await crowd(proxy, load, rng)
        requests += (await small(proxy, load, rng))["requests_per_s"] * load.small_s
    grown = proxy.memory() - first
    return {"soak_grows_mib": grown / 1024**2, "soak_requests": requests}
