"""A key's limits under a thousand requests at once, with processes that are killed."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.simulator.server import Manners
from tests.black_box import ProxyProcess, forked_proxy, run_cli
from tests.fakes.instance import InProcessBackend

RPM, PARALLEL, TOKENS = 60, 5, 1000
LIMITS = (f"--rpm={RPM}", f"--parallel={PARALLEL}", f"--tokens-per-day={TOKENS}")
ANSWER = 40
BODY_TOKENS = 20
"""What the body of a request counts at least: its bytes / 3."""

WAYS = pytest.mark.parametrize("way", ["fast", "aiohttp"])


@pytest.fixture
async def instance() -> AsyncIterator[InProcessBackend]:
    """A server that is there whatever becomes of the proxy."""
    backend = InProcessBackend(Manners(rate=200.0))
    await backend.start(LaunchId("l0000000000000001"))
    yield backend
    await backend.aclose()


@asynccontextmanager
async def proxied(
    state: Path, instance: InProcessBackend
) -> AsyncIterator[ProxyProcess]:
    """Run a proxy that has looked at its instance.

    What comes before is admitted, and gets a 503. The instance answers from this very
    process, which must not block meanwhile.
    """
    with forked_proxy(
        state,
        OLLAMA_PROXY_BACKEND="static",
        OLLAMA_PROXY_UPSTREAM_URL=instance.url,
    ) as proxy:

        def is_ready() -> bool:
            told = proxy.get("/status", **proxy.orders())
            return bool(told["provisioning_status"] == "ready")

        await asyncio.to_thread(proxy.until, is_ready, 60.0)
        yield proxy


@dataclass
class Outcome:
    """What a thousand requests came to."""

    statuses: list[int] = field(default_factory=list)
    tokens: int = 0
    largest: int = 0
    words: set[str] = field(default_factory=set)

    @property
    def admitted(self) -> int:
        return sum(status not in {429, 503} for status in self.statuses)


async def send(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], told: Outcome
) -> None:
    asked = {"model": "tiny", "prompt": "hi", "options": {"num_predict": ANSWER}}
    try:
        async with session.post(
            f"{url}/api/generate", json=asked, headers=headers
        ) as reply:
            body = await reply.read()
    except aiohttp.ClientError:
        told.statuses.append(0)  # the proxy was killed
        return
    told.statuses.append(reply.status)
    if reply.status == 429:
        told.words.add(json.loads(body)["error"])
        assert 1 <= int(reply.headers["Retry-After"]) <= 60
    elif reply.status == 200:
        last: dict[str, Any] = json.loads(body.splitlines()[-1])
        used = last["prompt_eval_count"] + last["eval_count"]
        told.tokens += used
        told.largest = max(told.largest, used)


async def storm(
    url: str, headers: dict[str, str], count: int = 1000, rounds: int = 1
) -> Outcome:
    """Send requests at once, in some rounds."""
    told, timeout = Outcome(), aiohttp.ClientTimeout(total=90)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        for _ in range(rounds):
            await asyncio.gather(
                *(send(session, url, headers, told) for _ in range(count))
            )
    return told


def made_key(proxy: ProxyProcess, limits: Sequence[str] = LIMITS) -> str:
    made = run_cli(
        "key",
        "add",
        "ci",
        "--yes",
        *limits,
        OLLAMA_PROXY_STATE_DIR=str(proxy.state),
        OLLAMA_HOST=proxy.url,
    )
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def headers_of(key: str, way: str) -> dict[str, str]:
    origin = {"Origin": "http://localhost"} if way == "aiohttp" else {}
    return {"Authorization": f"Bearer {key}", **origin}


@WAYS
async def test_a_thousand_requests_at_once_stay_within_every_limit(
    tmp_path: Path, instance: InProcessBackend, way: str
) -> None:
    async with proxied(tmp_path / "state", instance) as proxy:
        headers = headers_of(made_key(proxy), way)
        begun = time.perf_counter()
        told = await storm(proxy.url, headers, count=1000, rounds=2)
        minutes = (time.perf_counter() - begun) / 60

    assert instance.simulator.counters.most_working <= PARALLEL
    assert told.tokens <= TOKENS + PARALLEL * told.largest
    assert told.admitted <= RPM * (1 + minutes) + 1
    assert set(told.statuses) == {200, 429}
    assert any("may have 5 requests in progress" in words for words in told.words)


@WAYS
async def test_a_proxy_that_is_killed_forgets_no_tokens_that_were_reserved(
    tmp_path: Path, instance: InProcessBackend, way: str
) -> None:
    instance.simulator.manners.rate = 10.0  # an answer takes four seconds
    state, told, key = tmp_path / "state", [], ""
    limits = (f"--parallel={PARALLEL}", f"--tokens-per-day={TOKENS}")
    counters = instance.simulator.counters
    for _ in range(5):
        async with proxied(state, instance) as proxy:
            key = key or made_key(proxy, limits)
            sending = asyncio.ensure_future(
                storm(proxy.url, headers_of(key, way), count=100)
            )
            async with asyncio.timeout(20):
                while counters.working < PARALLEL and not sending.done():
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(proxy.kill)
            told.append(await sending)
        async with asyncio.timeout(20):
            while counters.working:
                await asyncio.sleep(0.02)

    reserved = ANSWER + BODY_TOKENS
    assert counters.most_working == PARALLEL
    sent = counters.requests["/api/generate"] - 1  # one loaded the model
    assert sent * reserved < TOKENS + PARALLEL * reserved
    assert set(told[-1].statuses) == {429}
    assert all("may use 1000 tokens a day" in words for words in told[-1].words)


@WAYS
async def test_a_proxy_that_is_killed_forgets_no_request_of_the_last_minute(
    tmp_path: Path, instance: InProcessBackend, way: str
) -> None:
    state, told, key = tmp_path / "state", [], ""
    begun = time.perf_counter()
    for _ in range(3):
        async with proxied(state, instance) as proxy:
            key = key or made_key(proxy, (f"--rpm={RPM}",))
            told.append(await storm(proxy.url, headers_of(key, way), count=200))
            await asyncio.to_thread(proxy.kill)
    minutes = (time.perf_counter() - begun) / 60

    assert told[0].admitted >= RPM
    assert sum(one.admitted for one in told) <= RPM * (1 + minutes) + 1
