"""The page of a hub in a real browser: nodes, one that goes offline, and a launch."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.backends.hub import HubBackend
from ollama_proxy.base.tasks import scoped_task
from ollama_proxy.core.nodes.labels import Labels
from ollama_proxy.fleet.backend import Backend
from tests.chromium import PROGRAM, Page, chromium
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, generate, running_proxy

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no chromium")

PHONE, DESK = (360, 740), (1100, 1100)
FITS = "document.documentElement.scrollWidth <= window.innerWidth"
TEXT = "document.body.innerText"
MARKUP = "<img src=x onerror='window.isRun=1'>"
OVERFLOW = """
hub = true
[offers.house]
backend = "hub"
[offers.cloud]
backend = "local"
price_per_hour = 1.93
currency = "EUR"
[pools.all]
models = ["*"]
offers = ["house", "cloud"]
"""


def beat(name: str, *models: str, cpu: float = 0.1, memory: float = 0.4) -> Any:
    return {
        "node_id": name,
        "port": 1,
        "models": models,
        "metadata": {"hostname": f"{name}.lan"},
        "load": {"cpu": cpu, "memory": memory},
    }


@dataclass
class House:
    """A hub, its browser, and nodes that beat until they are taken out."""

    proxy: RunningProxy
    page: Page
    beats: dict[str, Any] = field(default_factory=dict)

    async def beat(self) -> None:
        for body in tuple(self.beats.values()):
            url = f"{self.proxy.hub_url}/nodes/heartbeat"
            async with self.proxy.session.post(url, json=body) as answer:
                assert answer.status == 200, await answer.text()

    async def keep_beating(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(0.3)


@contextlib.asynccontextmanager
async def browsing(tmp_path: Path) -> AsyncIterator[House]:
    """Run a hub with three nodes, and an overflow that takes long to boot."""
    file = tmp_path / "hub.toml"
    file.write_text(OVERFLOW)
    booting = InProcessBackend(boot_s=600.0)
    backends: dict[str, Backend] = {"house": HubBackend(Labels()), "cloud": booting}
    async with (
        running_proxy(
            tmp_path / "state",
            backends=backends,
            file=file,
            OLLAMA_MODEL="llama3.1:70b",
            HEARTBEAT_TTL_SECONDS="3",
            HEARTBEAT_OFFLINE_SECONDS="600",
        ) as proxy,
        chromium(tmp_path / "browser", "MAP *.lan 127.0.0.1") as page,
    ):
        house = House(proxy, page)
        for body in (
            beat("attic", "llama3.2:latest", "qwen2.5:7b", cpu=0.82, memory=0.61),
            beat("cellar", "llama3.2:latest", cpu=0.07, memory=0.22),
            beat("workshop", "gemma3:27b", "nomic-embed-text:latest", cpu=0.35),
        ):
            house.beats[body["node_id"]] = body
        await house.beat()
        async with scoped_task(house.keep_beating(), name="beats"):
            yield house
        booting.boot_s = 0.0


async def test_three_nodes_one_of_which_goes_offline_while_a_machine_boots(
    tmp_path: Path,
) -> None:
    async with browsing(tmp_path) as house:
        page, proxy = house.page, house.proxy
        await page.look_like(*DESK)
        await page.open(f"{proxy.hub_url}/")
        before = await page.run(TEXT)
        del house.beats["cellar"]
        asking = proxy.session.post(
            f"{proxy.hub_url}/jobs", json=generate(model="llama3.1:70b")
        )
        async with scoped_task(asking, name="asking"):
            pool = proxy.parts.pool
            await proxy.until(lambda: pool.waiting == 1)
            row = "[...document.querySelectorAll('tr')]"
            await page.until(
                f"{row}.some((one) => /cellar[^]*offline/.test(one.innerText))"
            )
            await page.until("document.querySelectorAll('progress').length === 1")
            after = await page.run(TEXT)

    for name in ("attic", "cellar", "workshop"):
        assert name in before
    assert "82 %" in before
    assert "61 %" in before
    assert "offline it has" not in before
    assert after.count("it has not beaten for a while") == 1


async def test_names_with_markup_are_text(tmp_path: Path) -> None:
    async with browsing(tmp_path) as house:
        hostile = beat(MARKUP, "llama3.2:latest")
        hostile["metadata"]["hostname"] = f"<h1>{MARKUP}"
        house.beats["hostile"] = hostile
        await house.beat()
        await house.page.open(f"{house.proxy.hub_url}/?still")
        told = await house.page.run(TEXT)
        images = await house.page.run("document.images.length")

        assert await house.page.run("window.isRun") is None
    assert images == 0
    assert MARKUP in told


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
async def test_on_a_phone_nodes_fit_the_screen(
    tmp_path: Path, *, is_dark: bool
) -> None:
    async with browsing(tmp_path) as house:
        house.beats["long"] = beat(
            "n" * 128, *(f"{'model-' * 12}{n}" for n in range(9))
        )
        await house.beat()
        await house.page.look_like(*PHONE, is_dark=is_dark)
        await house.page.open(f"{house.proxy.hub_url}/?still")

        assert await house.page.run(FITS)
        assert "n" * 128 in await house.page.run(TEXT)
