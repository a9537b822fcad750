"""Requests that are worth no instance."""

from pathlib import Path

import pytest

from ollama_proxy.backends.static import StaticBackend
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy
from tests.virtual_time import SetClock

LOAD = {"model": "tiny"}
CLOUD = {"model": "big:120b-cloud", "messages": [{"role": "user", "content": "hi"}]}
COPILOT = {"User-Agent": "GitHubCopilotChat/0.31"}


async def ask(proxy: RunningProxy, path: str, body: object) -> tuple[int, str]:
    async with proxy.session.post(proxy.url + path, json=body) as answer:
        return answer.status, await answer.text()


async def test_a_load_wakes_unless_told_otherwise(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        status, _ = await ask(proxy, "/api/generate", LOAD)

        assert (status, proxy.state) == (503, "starting")


async def test_a_load_that_is_not_to_wake_is_answered_as_done(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_LOADS_KEEP_AWAKE="false") as proxy:
        status, text = await ask(proxy, "/api/generate", LOAD)

        assert (status, proxy.state) == (200, "cold")
        assert '"done_reason":"load"' in text


async def test_a_load_that_is_not_to_count_reaches_the_instance_all_the_same(
    tmp_path: Path,
) -> None:
    backend, clock = InProcessBackend(), SetClock()
    async with running_proxy(
        tmp_path, backend=backend, clock=clock, OLLAMA_PROXY_LOADS_KEEP_AWAKE="false"
    ) as proxy:
        await proxy.wake()
        clock.moment += 60.0
        status, text = await ask(proxy, "/api/chat", LOAD)
        idle_s = (await proxy.status())["idle_for_s"]

    assert (status, idle_s) == (200, 60.0)
    assert '"done_reason":"load"' in text
    assert backend.launches == 1


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_a_cloud_model_wakes_no_throw_away_instance(
    tmp_path: Path, path: str
) -> None:
    async with running_proxy(tmp_path) as proxy:
        status, text = await ask(proxy, path, CLOUD)

        assert (status, proxy.state) == (503, "cold")
        assert "cloud models run at ollama.com" in text


async def test_a_cloud_model_keeps_no_instance_awake(tmp_path: Path) -> None:
    backend, clock = InProcessBackend(models=("big:120b-cloud",)), SetClock()
    async with running_proxy(tmp_path, backend=backend, clock=clock) as proxy:
        await proxy.wake()
        clock.moment += 60.0
        status, _ = await ask(proxy, "/api/chat", CLOUD)
        idle_s = (await proxy.status())["idle_for_s"]

    assert (status, idle_s) == (200, 60.0)


async def test_a_server_with_a_disk_of_its_own_is_asked_for_cloud_models(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend(models=("big:120b-cloud",))
    async with running_proxy(tmp_path / "behind", backend=backend) as behind:
        await behind.wake()
        static = StaticBackend(backend.url)
        async with running_proxy(tmp_path / "front", backend=static) as proxy:
            status, _ = await ask(proxy, "/api/chat", CLOUD)

    assert status == 200


async def test_copilot_is_shown_a_model_under_the_name_it_asked_for(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        await proxy.until(lambda: proxy.catalogued is not None)
        await proxy.stop()
        names = []
        for headers in (COPILOT, {}):
            async with proxy.session.post(
                f"{proxy.url}/api/show", json={"model": "TINY"}, headers=headers
            ) as answer:
                shown = await answer.json()
                names.append(shown["model_info"]["general.basename"])

    assert names == ["TINY", "tiny"]


@pytest.mark.parametrize(("version", "status"), [("0.33.0", 400), ("9.0.0", 503)])
async def test_a_later_ollama_is_woken_to_judge_what_it_may_take(
    tmp_path: Path, version: str, status: int
) -> None:
    asked = {"model": "tiny", "think": "ultra", "messages": []}
    async with running_proxy(tmp_path, OLLAMA_PROXY_ASLEEP_VERSION=version) as proxy:
        assert (await ask(proxy, "/api/chat", asked))[0] == status


BROKEN = b'{"model":"tiny","messages":5}'


@pytest.mark.parametrize("headers", [{}, {"Prefer": "wait=1"}])
async def test_awake_a_wrong_request_is_the_instances_to_refuse(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        async with proxy.session.post(
            f"{proxy.url}/api/chat", data=BROKEN, headers=headers
        ) as answer:
            assert "X-Ollama-Proxy" not in answer.headers
            assert answer.status == 400
