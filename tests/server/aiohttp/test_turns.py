"""Requests of several clients that wait for one slot, on real sockets."""

import asyncio
import re
from pathlib import Path

import aiohttp
import pytest

from ollama_proxy.core.access.keys import Rights
from ollama_proxy.serving.hold_policy import HoldPolicy
from ollama_proxy.simulator.server import Manners
from tests.config.rig import toml
from tests.fakes.callers import Callers, bearer
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, generate, running_proxy

RIGHTS = {"ci": Rights(), "anna": Rights(), "boss": Rights(priority=1)}


async def ask(
    proxy: RunningProxy,
    done: list[str],
    name: str,
    session: aiohttp.ClientSession | None = None,
) -> None:
    """Send a request that takes a slot for a moment, and note that it is served."""
    body = generate(stream=False, options={"num_predict": 4})
    url = f"{proxy.url}/api/generate"
    async with (session or proxy.session).post(
        url, json=body, headers=bearer(name)
    ) as reply:
        assert reply.status == 200
        await reply.read()
    done.append(name)


async def served(
    proxy: RunningProxy,
    names: list[str],
    sessions: dict[str, aiohttp.ClientSession] | None = None,
) -> list[str]:
    """Have requests wait for the slot, in this order; return how they get it."""
    done: list[str] = []
    tasks = []
    held = proxy.parts.pool.try_lease()
    assert held is not None
    for number, name in enumerate(names, 1):
        asking = ask(proxy, done, name, (sessions or {}).get(name))
        tasks.append(asyncio.get_running_loop().create_task(asking))
        await all_wait(proxy, number)
    held.release()
    await asyncio.gather(*tasks)
    return done


async def all_wait(proxy: RunningProxy, count: int) -> None:
    await proxy.until(lambda: proxy.parts.pool.waiting == count)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return toml(tmp_path, '[offers.box]\nbackend = "local"\nslots = 1\n')


async def test_keys_take_turns_and_the_higher_priority_goes_first(
    tmp_path: Path, file: Path
) -> None:
    async with running_proxy(
        tmp_path / "state",
        file=file,
        backend=InProcessBackend(Manners(rate=40.0)),
        identify=Callers(**RIGHTS),
    ) as proxy:
        await proxy.wake()
        order = await served(proxy, ["ci", "ci", "ci", "anna", "boss", "anna", "boss"])

    assert order == ["boss", "boss", "ci", "anna", "ci", "anna", "ci"]


async def test_without_keys_clients_addresses_take_turns(
    tmp_path: Path, file: Path
) -> None:
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with (
        running_proxy(
            tmp_path / "state",
            file=file,
            backend=InProcessBackend(Manners(rate=40.0)),
        ) as proxy,
        aiohttp.ClientSession(connector=connector) as other,
    ):
        await proxy.wake()
        names = ["one", "one", "one", "two"]
        order = await served(proxy, names, {"two": other})

    assert order == ["one", "two", "one", "one"]


async def test_a_refused_or_held_request_is_told_its_place_by_its_own_key(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend(boot_s=1000.0)
    hold = HoldPolicy(hold_s=0.0, silent_s=0.1, beat_s=0.1)
    chat = {
        "model": "tiny",
        "stream": True,
        "messages": [{"role": "user", "content": "x"}],
    }
    async with running_proxy(
        tmp_path,
        backend=backend,
        hold=hold,
        identify=Callers(**RIGHTS),
    ) as proxy:
        url, held = f"{proxy.url}/v1/chat/completions", []
        for name in ("ci", "ci", "ci", "anna"):
            headers = bearer(name) | {"Prefer": "wait=99"}
            held.append(await proxy.session.post(url, json=chat, headers=headers))
            await all_wait(proxy, len(held))
        places = {}
        for name in ("ci", "anna", "boss", "somebody else"):
            native = f"{proxy.url}/api/generate"
            asked = proxy.session.post(native, json=generate(), headers=bearer(name))
            async with asked as reply:
                assert reply.status == 503
                places[name] = (await reply.json())["position"]
        told = await held[3].content.readuntil(b"position 2\n\n")
        last = await held[2].content.readuntil(b"position 4\n\n")
        for one in held:
            one.close()
        backend.boot_s = 0.0

    assert re.search(rb": waiting, position 2", told)
    assert re.search(rb": waiting, position 4", last)
    assert places == {"ci": 5, "anna": 4, "boss": 1, "somebody else": 3}
