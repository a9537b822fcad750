"""`deploy` and `delete` beside a running proxy, against the strict fake."""

import asyncio

from tests.backends.fly.rig import APP, IMAGE, Rig
from tests.black_box import ProxyProcess, forked_proxy, run_cli
from tests.fakes.fly.server import TOKEN

NEW = IMAGE.replace("0.32.15", "0.33.0")


def environment(rig: Rig) -> dict[str, str]:
    return {
        "FLY_FLAPS_BASE_URL": rig.server.url,
        "FLY_APP_URL": f"{rig.server.url}/edge/{{app}}",
        "FLY_API_TOKEN": TOKEN,
        "FLY_APP": APP,
        "OLLAMA_PROXY_SIMULATOR": "auto",
    }


async def typed(
    rig: Rig, proxy: ProxyProcess, *words: str, **more: str
) -> tuple[int, str]:
    env = (
        environment(rig)
        | more
        | {
            "OLLAMA_HOST": proxy.url,
            "OLLAMA_PROXY_STATE_DIR": str(rig.folder / "state"),
        }
    )
    done = await asyncio.to_thread(run_cli, *words, **env)
    return done.returncode, done.stdout + done.stderr


async def woken(proxy: ProxyProcess) -> None:
    await asyncio.to_thread(proxy.post, "/-/wake", {})
    ready = lambda: proxy.get("/status")["provisioning_status"] == "ready"  # noqa: E731
    await asyncio.to_thread(proxy.until, ready, 60.0)


def images(rig: Rig) -> list[str]:
    return [str(one.config["image"]) for one in rig.cloud.paid]


async def test_a_running_hub_deploys_and_deletes_what_its_cloud_has(rig: Rig) -> None:
    env = environment(rig) | {
        "OLLAMA_PROXY_HUB": "true",
        "OLLAMA_PROXY_HUB_LISTEN": "off",
        "OLLAMA_PROXY_BACKEND": "fly",
    }
    running = forked_proxy(rig.folder / "state", **env)
    proxy = await asyncio.to_thread(running.__enter__)
    try:
        deployed = await typed(rig, proxy, "deploy", IMAGE, **env)
        volumes = len(rig.cloud.volumes())
        gone = await typed(rig, proxy, "delete", "--yes", **env)
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)

    assert (deployed[0], gone[0]) == (0, 0), (deployed, gone)
    assert "the running proxy does it" in deployed[1]
    assert (volumes, rig.cloud.volumes()) == (1, [])


async def test_a_running_proxy_goes_on_with_the_new_image_and_then_with_none(
    rig: Rig,
) -> None:
    running = forked_proxy(rig.folder / "state", **environment(rig))
    proxy = await asyncio.to_thread(running.__enter__)
    try:
        first = await typed(rig, proxy, "deploy", IMAGE)
        await woken(proxy)
        before = images(rig)
        second = await typed(rig, proxy, "deploy", NEW)
        stopped = images(rig)
        await woken(proxy)
        after = images(rig)
        gone = await typed(rig, proxy, "delete", "--yes")
        asked = await asyncio.to_thread(proxy.get, "/healthz")
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)

    assert (first[0], second[0], gone[0]) == (0, 0, 0), (first, second, gone)
    assert "the running proxy does it" in second[1]
    assert "the proxy stops its instance" in second[1]
    assert (before, stopped, after) == ([IMAGE], [], [NEW])
    assert asked["status"] == "ok"
    assert (rig.cloud.paid, rig.cloud.volumes()) == ([], [])
