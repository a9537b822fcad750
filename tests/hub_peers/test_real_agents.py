"""A house of real agents before simulators: shares, failures, ends, names."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from ollama_proxy.simulator.server import Manners, build_simulator
from tests.black_box import ProxyProcess
from tests.hub_peers.real_agents import (
    MODEL,
    Agent,
    Ollama,
    agent,
    hub_process,
    nodes_of,
    ollama,
    serving,
    until,
    until_listed,
)

RATES = {"slow": 20.0, "middle": 40.0, "fast": 80.0}


def body(tokens: int = 20, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "hi", "options": {"num_predict": tokens}} | more


Boxes = dict[str, tuple[Agent, Ollama]]


@contextlib.asynccontextmanager
async def house(
    folder: Path, hub: ProxyProcess, slots: int = 2
) -> AsyncIterator[Boxes]:
    """Have three boxes of different speeds, and of so many slots each."""
    made: Boxes = {}
    async with contextlib.AsyncExitStack() as stack:
        for node_id, rate in RATES.items():
            before = await stack.enter_async_context(ollama(rate, MODEL, node_id))
            running = agent(
                folder / node_id,
                hub.url,
                node_id,
                before.url,
                OLLAMA_NUM_PARALLEL=str(slots),
            )
            made[node_id] = await stack.enter_async_context(running), before
        await until_listed(hub, *RATES)
        yield made


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)  # hubs may be killed
    timeout = aiohttp.ClientTimeout(total=100)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as made:
        yield made


async def ask(
    session: aiohttp.ClientSession, hub: ProxyProcess, job: dict[str, Any]
) -> list[dict[str, Any]]:
    """Have a job done; return the lines of its answer, the last one first."""
    async with session.post(f"{hub.url}/jobs", json=job) as answer:
        text = await answer.text()
        assert answer.status == 200, text
        return [json.loads(line) for line in text.splitlines() if line.strip()][::-1]


@pytest.mark.parametrize("askers", [6, 14])
async def test_shares_are_those_of_speed(
    tmp_path: Path, session: aiohttp.ClientSession, askers: int
) -> None:
    with hub_process(tmp_path) as hub:
        async with house(tmp_path, hub) as boxes:
            loop = asyncio.get_running_loop()
            end = loop.time() + 12.0

            async def work() -> None:
                while loop.time() < end:
                    (told, *_) = await ask(session, hub, body(stream=False))
                    assert told["done"]

            await asyncio.gather(*(work() for _ in range(askers)))
            done = {name: before.jobs for name, (_, before) in boxes.items()}
    total = sum(done.values())
    for name, rate in RATES.items():
        fair = rate / sum(RATES.values())
        assert done[name] / total == pytest.approx(fair, rel=0.3), done


async def test_a_hundred_jobs_at_once_are_spread(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with hub_process(tmp_path) as hub:
        async with house(tmp_path, hub, slots=4) as boxes:
            jobs = [ask(session, hub, body(4)) for _ in range(100)]
            answers = await asyncio.gather(*jobs)
            done = {name: before.jobs for name, (_, before) in boxes.items()}

    assert all(lines[0]["done"] for lines in answers)
    assert sum(done.values()) == 100
    assert min(done.values()) >= 10


async def test_a_job_goes_where_its_model_is(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with hub_process(tmp_path) as hub:
        async with house(tmp_path, hub) as boxes:
            for name in RATES:
                for spelled in (name, f"{name}:latest"):
                    await ask(session, hub, {**body(2), "model": spelled})
            done = {name: before.jobs for name, (_, before) in boxes.items()}

    assert done == dict.fromkeys(RATES, 2)


@pytest.mark.parametrize("killed", ["agent", "ollama"])
async def test_a_box_that_dies_ends_its_streams_and_no_others(
    tmp_path: Path, session: aiohttp.ClientSession, killed: str
) -> None:
    with hub_process(tmp_path) as hub:
        async with house(tmp_path, hub) as boxes:
            victim, before = boxes["slow"]
            jobs = [
                asyncio.ensure_future(ask(session, hub, body(160))) for _ in range(6)
            ]
            await until(lambda: all(one.jobs == 2 for _, one in boxes.values()))
            await asyncio.sleep(0.5)
            if killed == "agent":
                victim.process.kill()
            else:
                before.break_off()
            answers = await asyncio.gather(*jobs)

    whole = [lines for lines in answers if lines[0].get("done")]
    broken = [lines for lines in answers if not lines[0].get("done")]
    assert len(whole) == 4
    assert len(broken) == 2
    for last, *earlier in broken:
        assert isinstance(last.get("error", last.get("detail")), str), last
        assert earlier
        assert all("response" in line for line in earlier)


async def test_a_box_that_fails_at_once_gets_nothing_after_its_third_failure(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Its agent beats on, and its Ollama lists what it never runs."""
    failed: list[str] = []

    async def fail(request: web.Request) -> web.Response:
        failed.append(request.path)
        return web.json_response({"error": "no runner"}, status=502)

    broken = build_simulator(Manners(), models=[MODEL, "rare"])
    broken.middlewares.insert(0, _instead("/api/generate", fail))
    with hub_process(tmp_path) as hub:
        async with (
            house(tmp_path, hub),
            serving(broken) as url,
            agent(tmp_path / "bad", hub.url, "bad", url, OLLAMA_NUM_PARALLEL="8"),
        ):
            await until_listed(hub, "bad")
            rare = {**body(2), "model": "rare"}
            told = [await refused(session, hub, rare) for _ in range(4)]
            nodes = await nodes_of(hub)
            jobs = [ask(session, hub, body(2)) for _ in range(40)]
            answers = await asyncio.gather(*jobs)

    assert all(lines[0]["done"] for lines in answers)
    assert len(failed) == 3
    assert [error["status"] for one in told[:3] for error in one["errors"]] == [502] * 3
    assert told[3] == "No healthy nodes available for requested model"
    assert (nodes["bad"]["status"], nodes["bad"]["failure_count"]) == ("degraded", 3)


async def refused(
    session: aiohttp.ClientSession, hub: ProxyProcess, job: dict[str, Any]
) -> Any:
    """Have a job refused; return the details."""
    async with session.post(f"{hub.url}/jobs", json=job) as answer:
        assert answer.status == 503
        return (await answer.json())["detail"]


def _instead(path: str, answer: Handler) -> Any:
    """Return a middleware that answers one path."""

    @web.middleware
    async def answering(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await (answer if request.path == path else handler)(request)

    return answering


async def test_of_two_agents_of_one_name_one_is_told_and_neither_flaps(
    tmp_path: Path,
) -> None:
    with hub_process(tmp_path) as hub:
        async with (
            ollama(20.0) as before,
            agent(tmp_path / "first", hub.url, "twin", before.url) as first,
        ):
            await until_listed(hub, "twin")
            async with agent(
                tmp_path / "second", hub.url, "twin", before.url
            ) as second:
                await until(lambda: any(map(_is_told, (first, second))))
                boots = set()
                for _ in range(30):
                    twin = (await nodes_of(hub))["twin"]
                    boots.add((twin["boot_id"], twin["port"], twin["status"]))
                    await asyncio.sleep(0.1)
                told = [one for one in (first, second) if _is_told(one)]

    assert len(told) == 1
    assert len(boots) == 1
    ((_, port, status),) = boots
    assert status == "online"
    assert port == (second if told == [first] else first).port


def _is_told(one: Agent) -> bool:
    return "NODE_ID" in one.log.read_text().partition("on port")[2]


async def test_a_hub_that_is_killed_goes_on_with_its_nodes_at_once(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """They have one time-out's grace, and none has beaten when the first job comes."""
    async with contextlib.AsyncExitStack() as agents:
        with hub_process(tmp_path) as hub:
            await agents.enter_async_context(house(tmp_path, hub))
            await ask(session, hub, body(2))
            await asyncio.sleep(1.5)  # what is known of nodes is written every second
            hub.kill()
            address = hub.url.removeprefix("http://")
        with hub_process(tmp_path, OLLAMA_HOST=address) as hub:
            (told, *_) = await ask(session, hub, body(2))
            nodes = await nodes_of(hub)

    assert told["done"]
    assert {name: node["status"] for name, node in nodes.items()} == dict.fromkeys(
        RATES, "online"
    )


async def test_a_client_that_leaves_ends_the_work_of_its_node(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with hub_process(tmp_path) as hub:
        async with house(tmp_path, hub) as boxes:
            async with session.post(f"{hub.url}/jobs", json=body(2000)) as answer:
                await answer.content.readline()
                answer.close()
            counters = [before.counters for _, before in boxes.values()]
            await until(lambda: any(one.cancelled for one in counters), 20.0)
            await until(lambda: not any(one.working for one in counters), 20.0)
            nodes = await nodes_of(hub)

    assert all(node["failure_count"] == 0 for node in nodes.values())
    assert all(node["active_jobs"] == 0 for node in nodes.values())
