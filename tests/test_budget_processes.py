"""A key's budget across proxies that are killed, with an instance that costs money."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.simulator.server import Manners
from tests.black_box import ROOT, Launch, ProxyProcess, launched_proxy, run_cli
from tests.fakes.instance import InProcessBackend
from tests.proxy import generate

IDLE_S, PRICE_PER_S = 20.0, 1.0
PLUGIN = '''
from pathlib import Path

from ollama_proxy.backend import Observation, Phase, Prices, Traits, Upstream

RUNNING = Path("{folder}/running")


class Paid:
    """A cloud whose one instance runs until it is stopped, whatever becomes of us."""

    traits = Traits(poll_s=0.05, watch_s=0.2)
    prices = Prices(3600.0)

    async def start(self, launch_id):
        RUNNING.write_text(launch_id)

    async def inspect(self, launch_id):
        if await self.owned() != {{launch_id}}:
            return Observation(Phase.GONE)
        return Observation(Phase.RUNNING, Upstream("{url}"))

    async def stop(self, launch_id):
        RUNNING.unlink(missing_ok=True)

    async def owned(self):
        return {{RUNNING.read_text()}} if RUNNING.exists() else set()

    async def aclose(self):
        pass


def open_backend(context):
    return Paid()
'''


@pytest.fixture
async def instance() -> AsyncIterator[InProcessBackend]:
    backend = InProcessBackend(Manners())
    await backend.start(LaunchId("l0000000000000001"))
    yield backend
    await backend.aclose()


@contextmanager
def proxied(folder: Path, instance: InProcessBackend) -> Iterator[ProxyProcess]:
    """Run a proxy with a plug-in for a cloud that has prices."""
    plugin = folder / "plugin"
    info = plugin / "paid-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: paid\nVersion: 1.0\n")
    door = "[ollama_proxy.backends]\npaid = paid_backend:open_backend\n"
    (info / "entry_points.txt").write_text(door)
    words = PLUGIN.format(folder=folder, url=instance.url)
    (plugin / "paid_backend.py").write_text(words)
    env = {
        "PYTHONPATH": f"{ROOT}:{plugin}",
        "OLLAMA_PROXY_BACKEND": "paid",
        "OLLAMA_PROXY_SIMULATOR": "",
        "OLLAMA_PROXY_IDLE_TIMEOUT": f"{IDLE_S:g}s",
    }
    with launched_proxy(folder / "state", Launch(), env) as proxy:
        yield proxy


def spent(proxy: ProxyProcess) -> float:
    return float(proxy.get("/-/keys/ci")["used"]["spent_today"])


def is_served(proxy: ProxyProcess, key: str) -> bool:
    """Ask once, after a moment."""
    time.sleep(0.2)
    bearer = f"Bearer {key}"
    return proxy.post("/api/generate", generate(), Authorization=bearer)[0] == 200


async def test_a_proxy_that_is_killed_forgets_no_money(
    tmp_path: Path, instance: InProcessBackend
) -> None:
    key, seen = "", [0.0]
    begun = time.perf_counter()
    for end in ("kill", "kill", "terminate", "kill"):
        with proxied(tmp_path, instance) as proxy:
            if not key:
                made = run_cli(
                    *("key", "add", "ci", "--yes", "--budget=100000/day"),
                    OLLAMA_PROXY_STATE_DIR=str(proxy.state),
                    OLLAMA_HOST=proxy.url,
                )
                key = made.stdout.strip()
            served = partial(is_served, proxy, key)
            await asyncio.to_thread(proxy.until, served, 60.0)
            seen.append(spent(proxy))
            getattr(proxy, end)()
    ran_s = time.perf_counter() - begun

    assert all(later >= before for before, later in pairwise(seen))
    assert seen[1] >= IDLE_S * PRICE_PER_S
    crashes, block = 3, 100_000 / 50
    assert seen[-1] <= ran_s * PRICE_PER_S + crashes * (IDLE_S + block) + IDLE_S + 600
