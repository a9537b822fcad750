"""`deploy` and `delete` beside a running proxy, against the strict fakes."""

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.backends.ovh.rig import IMAGE, Rig, ovh_rig
from tests.black_box import ProxyProcess, forked_proxy, run_cli
from tests.fakes.ovh.cloud import Timing
from tests.fakes.ovh.server import AI_TOKEN

NEW = IMAGE.replace("0.32.15", "0.33.0")
HELLO = {"model": "llama3.2", "prompt": "hi"}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with ovh_rig(tmp_path, "rest") as rig:
        rig.cloud.timing = Timing(scale_s=0.0, stop_s=0.0, delete_s=0.0)
        yield rig


def environment(rig: Rig) -> dict[str, str]:
    return {
        "OVH_AI_API_URL": f"{rig.server.url}/{{region}}",
        "OVH_DRIVER": "rest",
        "OVH_AI_TOKEN": AI_TOKEN,
        "OLLAMA_PROXY_SIMULATOR": "auto",
    }


@asynccontextmanager
async def serving(rig: Rig) -> AsyncIterator[ProxyProcess]:
    """Run the proxy, as a process, while the fakes answer in this one."""
    running = forked_proxy(rig.folder / "state", **environment(rig))
    proxy = await asyncio.to_thread(running.__enter__)
    try:
        yield proxy
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


async def typed(rig: Rig, proxy: ProxyProcess, *words: str) -> tuple[int, str]:
    env = environment(rig) | {
        "OLLAMA_HOST": proxy.url,
        "OLLAMA_PROXY_STATE_DIR": str(rig.folder / "state"),
    }
    done = await asyncio.to_thread(run_cli, *words, **env)
    return done.returncode, done.stdout + done.stderr


async def woken(proxy: ProxyProcess) -> None:
    await asyncio.to_thread(proxy.post, "/api/generate", HELLO)
    ready = lambda: proxy.get("/status")["provisioning_status"] == "ready"  # noqa: E731
    await asyncio.to_thread(proxy.until, ready)


async def taken(rig: Rig, call: str) -> None:
    """Wait until the platform has got a call, which it does not answer."""
    async with asyncio.timeout(60):
        while rig.server.script[call]:
            await asyncio.sleep(0.02)


def images(rig: Rig) -> list[str]:
    return [str(app.spec["image"]) for app in rig.cloud.paid]


async def test_a_running_proxy_goes_on_with_the_new_image(rig: Rig) -> None:
    async with serving(rig) as proxy:
        first = await typed(rig, proxy, "deploy", IMAGE)
        await woken(proxy)
        before = images(rig)
        second = await typed(rig, proxy, "deploy", NEW)
        stopped = images(rig)
        await woken(proxy)
        after = images(rig)

    assert (first[0], second[0]) == (0, 0), (first, second)
    assert "the proxy stops its instance" in second[1]
    assert (before, stopped, after) == ([IMAGE], [], [NEW])


async def test_everything_is_deleted_beside_a_running_proxy(rig: Rig) -> None:
    async with serving(rig) as proxy:
        await typed(rig, proxy, "deploy", IMAGE)
        asleep = await typed(rig, proxy, "delete", "--yes")
        await typed(rig, proxy, "deploy", IMAGE)
        await woken(proxy)
        serves = await typed(rig, proxy, "delete", "--yes")
        asked = await asyncio.to_thread(proxy.get, "/healthz")

    for gone in (asleep, serves):
        assert gone[0] == 0, gone
        assert gone[1].splitlines()[-1] == "nothing of this deployment is left"
    assert asked["status"] == "ok"
    assert not [app for app in rig.cloud.apps.values() if rig.cloud.is_there(app)]


async def test_a_refused_image_leaves_what_serves_alone(rig: Rig) -> None:
    async with serving(rig) as proxy:
        await typed(rig, proxy, "deploy", IMAGE)
        await woken(proxy)
        code, said = await typed(rig, proxy, "deploy", "registry.example/ollama")
        serves = images(rig)
        state = await asyncio.to_thread(proxy.get, "/status")

    assert code == 1
    assert "no tag" in said
    assert serves == [IMAGE]
    assert state["provisioning_status"] == "ready"


@pytest.mark.parametrize("path", ["/deploy", "/-/deploy", "/delete", "/-/delete"])
async def test_the_listening_port_knows_no_such_order(rig: Rig, path: str) -> None:
    target = f"{path}?backend=ovh&image={IMAGE}"
    async with serving(rig) as proxy:
        mode = (rig.folder / "state" / "control.sock").stat().st_mode
        status, _ = await asyncio.to_thread(proxy.post, target, {})

    assert status == 404
    assert stat.S_IMODE(mode) == 0o600
    assert rig.cloud.made == 0


async def test_one_that_was_killed_asks_for_nothing(rig: Rig) -> None:
    async with serving(rig) as proxy:
        await asyncio.to_thread(proxy.kill)
        alone = await typed(rig, proxy, "deploy", IMAGE)
    async with serving(rig) as proxy:
        beside = await typed(rig, proxy, "deploy", IMAGE)

    assert (alone[0], beside[0]) == (0, 0), (alone, beside)
    assert "the running proxy does it" not in alone[1]
    assert "the running proxy does it" in beside[1]
    assert rig.cloud.made == 1


async def test_without_a_socket_the_proxy_has_to_be_stopped(rig: Rig) -> None:
    async with serving(rig) as proxy:
        (rig.folder / "state" / "control.sock").unlink()
        code, said = await typed(rig, proxy, "deploy", IMAGE)

    assert code == 2
    assert "is in use by process" in said
    assert "stop it" in said
    assert rig.cloud.made == 0


async def test_a_launch_whose_app_was_replaced_without_a_proxy_is_gone_for_the_next(
    rig: Rig,
) -> None:
    async with serving(rig) as proxy:
        await typed(rig, proxy, "deploy", IMAGE)
        await woken(proxy)
        await asyncio.to_thread(proxy.kill)
        running = images(rig)
        replaced = await typed(rig, proxy, "deploy", NEW)
        stopped = images(rig)
    async with serving(rig) as proxy:
        asleep = lambda: proxy.get("/status")["instance_status"] == "cold"  # noqa: E731
        await asyncio.to_thread(proxy.until, asleep, 60.0)
        meanwhile = images(rig)
        await woken(proxy)
        woken_again = images(rig)
        await typed(rig, proxy, "delete", "--yes")

    assert replaced[0] == 0, replaced
    assert "the running proxy does it" not in replaced[1]
    assert (running, stopped, meanwhile, woken_again) == ([IMAGE], [], [], [NEW])
    assert rig.cloud.paid == []


@pytest.mark.parametrize("call", ["list", "flavors", "stop", "get", "delete"])
async def test_a_proxy_that_is_killed_in_the_middle_of_an_order_leaves_nothing_billed(
    rig: Rig, call: str
) -> None:
    # A lost creation is waited for for minutes: test_killed_commands has the time.
    async with serving(rig) as proxy:
        await typed(rig, proxy, "deploy", IMAGE)
        await woken(proxy)
        rig.server.script["flavors"] = ["slow" if call == "flavors" else ""]
        order = asyncio.get_running_loop().create_task(typed(rig, proxy, "deploy", NEW))
        await taken(rig, "flavors")  # the order's own: others are the proxy's as well
        if call != "flavors":
            rig.server.script[call] = ["slow"]
            await taken(rig, call)
        await asyncio.to_thread(proxy.kill)
        broken_off = await order
    rig.server.script.clear()
    async with serving(rig) as proxy:
        again = await typed(rig, proxy, "deploy", NEW)
        await asyncio.to_thread(proxy.until, lambda: not rig.cloud.paid, 60.0)
    there = [app for app in rig.cloud.apps.values() if rig.cloud.is_there(app)]

    assert broken_off[0] == 1
    assert "give the order again" in broken_off[1]
    assert again[0] == 0, again
    assert [app.spec["image"] for app in there] == [NEW]


async def test_a_proxy_that_is_told_to_end_breaks_an_order_off_at_once(
    rig: Rig,
) -> None:
    async with serving(rig) as proxy:
        await typed(rig, proxy, "deploy", IMAGE)
        rig.server.script["list"] = ["slow"]
        order = asyncio.get_running_loop().create_task(typed(rig, proxy, "deploy", NEW))
        await taken(rig, "list")
        ended = await asyncio.to_thread(proxy.terminate)
        broken_off = await order

    assert ended == 0
    assert "ended in the middle of the order" in broken_off[1]
    assert not (rig.folder / "state" / "control.sock").exists()
    assert rig.cloud.paid == []
