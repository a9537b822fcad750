"""Two pools on real sockets: each request lands where its model is served."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy

TWO_POOLS = """
[offers.one]
backend = "local"
[offers.two]
backend = "local"
[pools.big]
models = ["big*"]
offers = ["one"]
[pools.small]
models = ["small*"]
offers = ["two"]
uploads = true
"""
POOL = "X-Ollama-Proxy-Pool"


@dataclass(slots=True)
class TwoPools:
    """A proxy with the pools ``big`` and ``small``, and the simulators behind it."""

    proxy: RunningProxy
    big: InProcessBackend
    small: InProcessBackend

    def state(self, pool: str) -> str:
        (controller,) = self.proxy.parts.pools[pool].pool.controllers
        return controller.record.state.value

    async def wake(self, *pools: str) -> None:
        for pool in pools:
            await self.proxy.parts.pools[pool].pool.wake()
        await self.proxy.until(lambda: all(self.state(p) == "ready" for p in pools))

    async def ask(
        self, path: str, body: Any = None, method: str = "", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, body and headers of an answer."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.proxy.session.request(
            method or ("GET" if body is None else "POST"),
            self.proxy.url + path,
            data=None if body is None else sent,
            headers={"Content-Type": "application/json", **given},
        ) as reply:
            text = await reply.read()
            is_json = reply.content_type == "application/json" and text.strip()
            told = json.loads(text) if is_json else text
            return reply.status, told, dict(reply.headers)


@pytest.fixture
async def pools(tmp_path: Path) -> AsyncIterator[TwoPools]:
    file = tmp_path / "ollama-proxy.toml"
    file.write_text(TWO_POOLS)
    big = InProcessBackend(models=["big:70b", "shared"])
    small = InProcessBackend(models=["small:3b", "shared"])
    async with running_proxy(
        tmp_path / "state", file=file, backends={"one": big, "two": small}
    ) as proxy:
        yield TwoPools(proxy, big, small)


def generate(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "hi", "stream": False, **more}


async def test_a_request_wakes_the_pool_of_its_model_alone(pools: TwoPools) -> None:
    status, _, _ = await pools.ask("/api/generate", generate("small:3b"))

    assert status == 503
    await pools.proxy.until(lambda: pools.state("small") == "ready")
    assert (pools.state("big"), pools.big.launches) == ("cold", 0)


@pytest.mark.parametrize("is_long", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": "hi", "stream": False}),
        (
            "/api/chat",
            {"messages": [{"role": "user", "content": "hi"}], "stream": False},
        ),
        ("/api/embed", {"input": "hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/responses", {"input": "hi"}),
        (
            "/v1/messages",
            {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
        ),
    ],
)
async def test_each_way_of_asking_lands_on_the_instance_of_its_model(
    pools: TwoPools, path: str, body: dict[str, Any], *, is_long: bool
) -> None:
    await pools.wake("big", "small")
    filler = {"filler": "x" * 400_000} if is_long else {}
    for model, backend in (("big:70b", pools.big), ("small:3b", pools.small)):
        other = pools.small if backend is pools.big else pools.big
        before = asked(other, path)
        status, told, _ = await pools.ask(path, {**body, **filler, "model": model})

        assert status == 200, told
        assert asked(backend, path) > 0
        assert asked(other, path) == before


def asked(backend: InProcessBackend, path: str) -> int:
    """Return how many requests for a path an instance has had."""
    return backend.simulator.counters.requests.get(path, 0)
