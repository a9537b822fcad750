"""Pools of several instances on real sockets: how many there are, and who gets what."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import CapacityError
from ollama_proxy.core.lifecycle.record import AT_REST, LaunchId
from ollama_proxy.simulator.server import (
    SIMULATOR,
    Manners,
    Simulator,
    build_simulator,
)
from tests.config.rig import toml
from tests.fakes.instance import InProcessBackend
from tests.pool_settings import TWO_POOLS, home_first
from tests.proxy import HURRIED, RunningProxy, running_proxy

POOL = """
max_waiting = 100
[offers.box]
backend = "local"
slots = 4
[pools.main]
models = ["*"]
offers = ["box"]
max_instances = 3
idle_timeout = "1s"
keep_extra = "0.3s"
hold = "60s"
"""
TWO_READY = POOL.replace('"1s"', '"1h"').replace(
    'keep_extra = "0.3s"', "min_instances = 2\nmax_starting = 2"
)
PROMPT = {"model": "tiny", "stream": False, "options": {"num_predict": 8}}
CHAT = {**PROMPT, "messages": [{"role": "user", "content": "hi"}]}

Opened = Callable[..., AbstractAsyncContextManager[RunningProxy]]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Return what runs a proxy with a settings file and a backend for each offer."""

    @asynccontextmanager
    async def run(settings: str, **backends: Any) -> AsyncIterator[RunningProxy]:
        file = toml(tmp_path, settings)
        async with running_proxy(
            tmp_path / "state", file=file, backends=backends, timing=HURRIED
        ) as proxy:
            yield proxy

    return run


def ready(proxy: RunningProxy) -> int:
    """Return how many instances of the first pool are ready."""
    return proxy.parts.pool.ready_count


def in_queue_or_flight(proxy: RunningProxy) -> int:
    """Return how many requests the first pool has."""
    return proxy.parts.pool.in_flight + proxy.parts.pool.waiting


def is_empty(proxy: RunningProxy) -> bool:
    """Tell whether no instance of ours is left."""
    return all(c.record.state in AT_REST for c in proxy.parts.pool.controllers)


async def chat(
    proxy: RunningProxy, body: Any = None, **headers: str
) -> tuple[int, Any]:
    async with proxy.session.post(
        f"{proxy.url}/api/chat", json=body or CHAT, headers=headers
    ) as reply:
        return reply.status, json.loads(await reply.read())


async def send(
    proxy: RunningProxy, path: str, body: Any, method: str = "POST"
) -> tuple[int, bytes]:
    async with proxy.session.request(method, proxy.url + path, json=body) as reply:
        return reply.status, await reply.read()


async def test_forty_chats_have_three_instances_of_four_slots_and_then_none(
    opened: Opened,
) -> None:
    box = InProcessBackend(Manners(rate=8.0))
    most: dict[LaunchId, int] = {}
    async with opened(POOL, box=box) as proxy:
        asking = [asyncio.ensure_future(chat(proxy)) for _ in range(40)]
        while not all(one.done() for one in asking):
            for launch_id, simulator in box.simulators.items():
                most[launch_id] = simulator.counters.most_working
            await asyncio.sleep(0.02)
        answers = [one.result() for one in asking]
        await proxy.until(lambda: is_empty(proxy))

    assert [status for status, _ in answers] == [200] * 40
    assert all(told["done"] for _, told in answers)
    assert len(most) == 3
    assert max(most.values()) == 4
    assert box.launches == 3
    assert box.running == 0


async def test_two_offers_of_which_the_first_has_no_room_answer_a_held_request(
    opened: Opened,
) -> None:
    full, free = InProcessBackend(), InProcessBackend()
    full.start_error = CapacityError("no room in this zone")
    settings = """
[offers.full]
backend = "local"
[offers.free]
backend = "local"
[pools.main]
models = ["*"]
offers = ["full", "free"]
"""
    async with opened(settings, full=full, free=free) as proxy:
        status, told = await chat(proxy, Prefer="wait=60")
        body = await proxy.status()

    assert (status, told["done"]) == (200, True)
    assert (full.launches, free.launches) == (1, 1)
    assert full.running == free.running == 0
    (pool,) = body["pools"]
    assert {one["offer"] for one in pool["instances"] if one["state"] == "ready"} == {
        "free"
    }


@pytest.mark.parametrize("is_stream", [False, True])
async def test_requests_that_wait_for_a_slot_are_served_in_their_order(
    opened: Opened, *, is_stream: bool
) -> None:
    box = InProcessBackend(Manners(rate=40.0))
    settings = POOL.replace("slots = 4", "slots = 1").replace("= 3", "= 1")
    order: list[int] = []
    async with opened(settings.replace('"60s"', '"0s"'), box=box) as proxy:
        await proxy.wake()

        async def ask(number: int) -> int:
            status, _ = await send(proxy, "/api/chat", {**CHAT, "stream": is_stream})
            order.append(number)
            return status

        asking = []
        for number in range(5):
            asking.append(asyncio.ensure_future(ask(number)))
            while in_queue_or_flight(proxy) <= number:
                await asyncio.sleep(0.005)
        statuses = await asyncio.gather(*asking)

        assert box.simulator.counters.most_working == 1
    assert statuses == [200] * 5  # although nothing may wait for a start
    assert order == [0, 1, 2, 3, 4]


async def test_a_full_queue_is_told_with_the_place_in_it(opened: Opened) -> None:
    box = InProcessBackend(Manners(rate=4.0))
    settings = POOL.replace("slots = 4", "slots = 1").replace("= 3", "= 1")
    async with opened(settings.replace("= 100", "= 2"), box=box) as proxy:
        await proxy.wake()
        asking = [asyncio.ensure_future(chat(proxy)) for _ in range(3)]
        await proxy.until(lambda: proxy.parts.pool.waiting == 2)

        status, told = await chat(proxy)

        assert (status, told["position"]) == (503, 3)
        assert "2 requests wait already" in told["error"]
        assert [one for one, _ in await asyncio.gather(*asking)] == [200] * 3


async def test_reads_pulls_and_lists_take_no_slot(opened: Opened) -> None:
    box = InProcessBackend(Manners(rate=4.0))
    settings = POOL.replace("slots = 4", "slots = 1").replace("= 3", "= 1")
    async with opened(settings, box=box) as proxy:
        await proxy.wake()
        asking = asyncio.ensure_future(chat(proxy))
        await proxy.until(lambda: proxy.parts.pool.in_flight == 1)

        for path, body in (
            ("/api/show", PROMPT),
            ("/api/pull", {"model": "more", "stream": False}),
        ):
            assert (await send(proxy, path, body))[0] == 200
        async with proxy.session.get(f"{proxy.url}/api/tags") as reply:
            assert reply.status == 200

        assert not asking.done()
        assert (await asking)[0] == 200


async def test_a_created_model_is_asked_of_its_instance_alone(opened: Opened) -> None:
    box = InProcessBackend()
    async with opened(TWO_READY, box=box) as proxy:
        await proxy.until(lambda: ready(proxy) == 2)
        body = {"model": "mine", "from": "tiny", "stream": False}
        assert (await send(proxy, "/api/create", body))[0] == 200
        have = [one for one in box.simulators.values() if one.store.get("mine")]
        assert len(have) == 1

        for _ in range(6):
            assert (await chat(proxy, {**CHAT, "model": "mine"}))[0] == 200
        assert (
            await send(proxy, "/api/copy", {"source": "mine", "destination": "too"})
        )[0] == 200
        for _ in range(4):
            assert (await chat(proxy, {**CHAT, "model": "too"}))[0] == 200
        async with proxy.session.get(f"{proxy.url}/api/tags") as reply:
            listed = {one["name"] for one in (await reply.json())["models"]}

    assert {"mine:latest", "too:latest", "tiny:latest"} == listed
    assert box.launches == 2


async def test_a_model_is_made_of_files_on_the_instance_that_has_them(
    opened: Opened,
) -> None:
    box = InProcessBackend()
    data = [b"GGUF" + bytes([number]) * 100 for number in range(3)]
    digests = [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in data]
    async with opened(TWO_READY, box=box) as proxy:
        await proxy.until(lambda: ready(proxy) == 2)
        for digest, one in zip(digests, data, strict=True):
            url = f"{proxy.url}/api/blobs/{digest}"
            async with proxy.session.head(url) as reply:
                assert reply.status == 404
            async with proxy.session.post(url, data=one) as reply:
                assert reply.status == 201
            async with proxy.session.head(url) as reply:
                assert reply.status == 200
        files = {f"{number}.gguf": one for number, one in enumerate(digests)}
        body = {"model": "made", "files": files, "stream": False}

        assert (await send(proxy, "/api/create", body))[0] == 200

        (has_files,) = [one for one in box.simulators.values() if one.store.blobs]
        assert {*has_files.store.blobs} == {*digests}
        assert has_files.store.get("made") is not None
        for _ in range(4):
            assert (await chat(proxy, {**CHAT, "model": "made"}))[0] == 200


async def test_each_pool_holds_its_requests_as_long_as_it_says(
    opened: Opened,
) -> None:
    big, small = InProcessBackend(), InProcessBackend(models=["small"])
    own = TWO_POOLS.replace("[pools.big]", '[pools.big]\nhold = "0s"')
    async with opened(f'hold = "60s"\n{own}', one=big, two=small) as proxy:
        statuses = [
            (await chat(proxy, {**CHAT, "model": model}))[0]
            for model in ("big", "small")
        ]

    assert statuses == [503, 200]


async def test_what_one_instance_pulls_the_others_pull_as_well(opened: Opened) -> None:
    box = InProcessBackend(Manners(pull_s=0.3))
    async with opened(TWO_READY, box=box) as proxy:
        await proxy.until(lambda: ready(proxy) == 2)

        assert (await send(proxy, "/api/pull", {"model": "new", "stream": False}))[
            0
        ] == 200
        statuses = {(await chat(proxy, {**CHAT, "model": "new"}))[0] for _ in range(6)}

        assert statuses == {200}  # of the first alone, as long as the other pulls
        await proxy.until(
            lambda: all(one.store.get("new") for one in box.simulators.values())
        )
        await proxy.until(
            lambda: proxy.parts.pools.first.places.instance_of("new") is None
        )


async def test_deletions_and_copies_are_carried_out_by_all(opened: Opened) -> None:
    box = InProcessBackend(models=["tiny", "old"])
    async with opened(TWO_READY, box=box) as proxy:
        await proxy.until(lambda: ready(proxy) == 2)

        assert (await send(proxy, "/api/copy", {"source": "old", "destination": "b"}))[
            0
        ] == 200
        assert all(one.store.get("b") for one in box.simulators.values())
        assert (await send(proxy, "/api/delete", {"model": "old"}, "DELETE"))[0] == 200
        assert not any(one.store.get("old") for one in box.simulators.values())
        next(iter(box.simulators.values())).store.add("half")
        assert (await send(proxy, "/api/delete", {"model": "half"}, "DELETE"))[0] == 200
        assert (await send(proxy, "/api/delete", {"model": "half"}, "DELETE"))[0] == 404


async def test_the_box_at_home_goes_first_and_the_cloud_when_it_is_away(
    opened: Opened,
) -> None:
    home = InProcessBackend(Manners(rate=20.0))
    cloud = InProcessBackend()
    await home.start(LaunchId("home"))
    timing = 'idle_timeout = "1s"\nkeep_extra = "0.3s"\nspill_after = "0.2s"\n'
    settings = home_first(home.url, slots=2) + timing
    async with opened(settings, home=StaticBackend(home.url), cloud=cloud) as proxy:
        await proxy.until(lambda: ready(proxy) == 1)
        statuses = {status for status, _ in [await chat(proxy) for _ in range(3)]}
        assert cloud.launches == 0

        statuses |= {
            status
            for status, _ in await asyncio.gather(*(chat(proxy) for _ in range(8)))
        }

        assert statuses == {200}
        await proxy.until(lambda: cloud.running == 0)
    await home.aclose()


class HurriedClock(SystemClock):
    """A clock that runs twenty times as fast, for what takes half a minute."""

    def now(self) -> float:
        return super().now() * 20.0


@asynccontextmanager
async def box_at(port: int) -> AsyncIterator[tuple[Simulator, int]]:
    """Run a box of somebody else's on a port; its connections are reset at the end."""
    app = build_simulator(Manners(), models=["tiny"])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    try:
        yield app[SIMULATOR], runner.addresses[0][1]
    finally:
        for connection in runner.server.connections if runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()


def chats(simulator: Simulator) -> int:
    return simulator.counters.requests.get("/api/chat", 0)


async def test_the_cloud_serves_while_the_box_is_away_and_leaves_when_it_is_back(
    tmp_path: Path,
) -> None:
    cloud = InProcessBackend()
    async with box_at(0) as (box, port):
        url = f"http://127.0.0.1:{port}"
        timing = 'idle_timeout = "60s"\nkeep_extra = "10s"\nspill_after = "0.1s"\n'
        running = running_proxy(
            tmp_path / "state",
            file=toml(tmp_path, home_first(url, slots=2) + timing),
            backends={"home": StaticBackend(url), "cloud": cloud},
            clock=HurriedClock(),
            timing=HURRIED,
        )
        proxy = await running.__aenter__()
        try:
            await proxy.until(lambda: ready(proxy) == 1)
            statuses = [(await chat(proxy))[0] for _ in range(3)]
            assert (chats(box), cloud.launches) == (3, 0)
        except BaseException:
            await running.__aexit__(None, None, None)
            raise
    try:
        statuses += [one for one, _ in await asyncio.gather(*map(chat, [proxy] * 4))]
        assert cloud.launches == 1

        async with box_at(port) as (box, _):
            while cloud.running:
                statuses.append((await chat(proxy))[0])
                await asyncio.sleep(0.02)
            before = chats(box)
            statuses.append((await chat(proxy))[0])

            assert chats(box) == before + 1
            assert {*statuses} == {200}
            assert cloud.launches == 1
    finally:
        await running.__aexit__(None, None, None)
