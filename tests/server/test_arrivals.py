"""What both servers tell a pool about the requests that arrive."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ollama_proxy.fleet.backend import Upstream
from tests.config.rig import toml
from tests.fakes.instance import InProcessBackend
from tests.fleet.test_arrivals import counted
from tests.proxy import HURRIED, RunningProxy, needs_fast_path, running_proxy
from tests.server.fast.test_handler import ASK, ask, post

TWO_INSTANCES = """
[offers.box]
backend = "local"
[pools.main]
models = ["*"]
offers = ["box"]
max_instances = 2
"""
GENERATE = post("/api/generate", ASK)
HELD = GENERATE.replace(b"User-Agent", b"Prefer: wait=1\r\nUser-Agent")


@asynccontextmanager
async def two_instances(
    folder: Path, box: InProcessBackend, fast_path: str = "true"
) -> AsyncIterator[RunningProxy]:
    async with running_proxy(
        folder / "state",
        file=toml(folder, TWO_INSTANCES),
        backends={"box": box},
        timing=HURRIED,
        OLLAMA_PROXY_FAST_PATH=fast_path,
    ) as proxy:
        yield proxy


@pytest.mark.parametrize(
    "fast_path", [pytest.param("true", marks=needs_fast_path), "false"]
)
async def test_a_client_that_asks_again_after_a_503_counts_once(
    tmp_path: Path, fast_path: str
) -> None:
    box = InProcessBackend(boot_s=600.0)
    async with two_instances(tmp_path, box, fast_path) as proxy:
        pool = proxy.parts.pool
        told = [await ask(proxy, GENERATE) for _ in range(4)]
        after_some = counted(pool)
        held, _ = await ask(proxy, HELD)
        after_all = counted(pool)
        box.boot_s = 0.0
        await proxy.until(lambda: pool.is_ready)
        served = [await ask(proxy, GENERATE)]
        when_served = counted(pool)
        served += [await ask(proxy, GENERATE) for _ in range(2)]

        assert all(b" 503 " in answer.status for answer, _ in [*told, (held, True)])
        assert all(b" 200 " in answer.status for answer, _ in served)
        assert (after_some, after_all, when_served, counted(pool)) == (1, 1, 1, 3)
        assert any(behind for _, behind in told) is (fast_path == "false")


@needs_fast_path
async def test_a_request_that_is_left_to_the_server_behind_counts_once(
    tmp_path: Path,
) -> None:
    async with two_instances(tmp_path, InProcessBackend()) as proxy:
        await proxy.wake()
        [instance] = [c for c in proxy.parts.pool.controllers if c.upstream]
        instance.upstream = Upstream("http://127.0.0.1:1")  # nothing listens there
        _, is_behind = await ask(proxy, GENERATE)

        assert (is_behind, counted(proxy.parts.pool)) == (True, 1)
