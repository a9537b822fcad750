"""A server of one's own that lacks a model, on real sockets: who answers for it."""

import json
from pathlib import Path
from typing import Any

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.core.lifecycle.events import Wake
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Backend
from tests.config.rig import toml
from tests.fakes.instance import InProcessBackend
from tests.pool_settings import home_first
from tests.proxy import HURRIED, RunningProxy, running_proxy


async def ask(proxy: RunningProxy, model: str) -> tuple[int, Any]:
    body = {"model": model, "prompt": "hi", "stream": False}
    async with proxy.session.post(f"{proxy.url}/api/generate", json=body) as reply:
        return reply.status, json.loads(await reply.read())


async def test_a_model_that_the_box_lacks_is_answered_by_the_offer_that_has_it(
    tmp_path: Path,
) -> None:
    home, cloud = InProcessBackend(), InProcessBackend(models=["large"])
    await home.start(LaunchId("home"))
    timing = 'idle_timeout = "1s"\nkeep_extra = "0.3s"\n'
    file = toml(tmp_path, home_first(home.url, slots=4) + timing)
    backends: dict[str, Backend] = {"home": StaticBackend(home.url), "cloud": cloud}

    async def until_known(proxy: RunningProxy, model: str, *, by_cloud: bool) -> None:
        models = proxy.parts.pools.first.offer_models
        assert models is not None
        await proxy.until(lambda: models.spills(model) is by_cloud)

    async with running_proxy(
        tmp_path / "state", file=file, backends=backends, timing=HURRIED
    ) as proxy:
        await proxy.until(lambda: proxy.parts.pool.is_ready)
        unknown = await ask(proxy, "large")
        assert cloud.launches == 0  # no offer is known to have it
        ours = proxy.parts.pool.controllers[1]
        await ours.wake(Wake(LaunchId("once")))
        await until_known(proxy, "large", by_cloud=True)
        await proxy.until(lambda: cloud.running == 0)

        large, tiny = await ask(proxy, "large"), await ask(proxy, "tiny")
        absent = await ask(proxy, "absent")
        assert cloud.launches == 2
        await proxy.until(lambda: cloud.running == 0)
    async with running_proxy(
        tmp_path / "state", file=file, backends=backends, timing=HURRIED
    ) as proxy:
        await proxy.until(lambda: proxy.parts.pool.is_ready)
        await until_known(proxy, "large", by_cloud=True)
        again = await ask(proxy, "large")
    await home.aclose()

    assert [one[0] for one in (unknown, large, tiny, absent, again)] == [
        404,
        200,
        200,
        404,
        200,
    ]
