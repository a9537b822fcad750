"""The agent works with a former hub, whatever that hub does, on real sockets."""

import asyncio
import json
import os
import re
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpServer

from ollama_proxy.cli.healthcheck import UnhealthyError, ask
from ollama_proxy.simulator.server import SIMULATOR, Manners, build_simulator
from ollama_proxy.simulator.state import Simulator
from tests.fakes.old_hub import OldHub, old_hub, run_job
from tests.fakes.ollama import real_ollama
from tests.node.agents import RunningAgent, post, running_agent
from tests.ports import held_port

MODEL = os.environ.get("REAL_OLLAMA_MODEL", "")


@pytest.fixture
async def hub() -> AsyncIterator[OldHub]:
    async with old_hub() as hub:
        yield hub


@pytest.fixture
async def simulator(aiohttp_server: AiohttpServer) -> tuple[str, Simulator]:
    app = build_simulator(Manners(rate=100.0, vram_share=1.0), models=["tiny", "big"])
    server = await aiohttp_server(app, auto_decompress=False, shutdown_timeout=0.1)
    return str(server.make_url("")).rstrip("/"), app[SIMULATOR]


@pytest.fixture
async def agent(
    hub: OldHub, simulator: tuple[str, Simulator], tmp_path: Path
) -> AsyncIterator[RunningAgent]:
    async with running_agent(
        tmp_path,
        SERVER_URL=hub.url,
        OLLAMA_BASE_URL=simulator[0],
        OLLAMA_NUM_PARALLEL="2",
        OLLAMA_MODELS=str(tmp_path),
        NODE_LABELS="gpu=a100",
    ) as agent:
        yield agent


async def until_idle(simulator: Simulator) -> None:
    async with asyncio.timeout(20):
        while simulator.counters.in_flight:
            await asyncio.sleep(0.01)


async def test_a_former_hub_learns_what_it_knows(
    agent: RunningAgent, hub: OldHub
) -> None:
    beat = await hub.until()

    assert beat["node_id"] == "gpu-1"
    assert (beat["ipv4"], beat["ipv6"]) == ("127.0.0.1", None)
    assert beat["port"] == agent.port
    assert sorted(beat["models"]) == ["big:latest", "tiny:latest"]
    assert beat["metadata"].keys() == {"hostname"}
    assert beat["load"].keys() == {"cpu", "memory"}


async def test_a_beat_has_our_keys_in_one_of_their_own(
    agent: RunningAgent, hub: OldHub
) -> None:
    first = (await hub.until(1))["agent"]
    job = run_job(hub, model="tiny:latest", prompt="hi")
    assert (await job)[0] == 200
    async with asyncio.timeout(20):
        while not (later := hub.beats[-1]["agent"])["loaded"]:
            await asyncio.sleep(0.01)

    assert re.fullmatch("[0-9a-f]{32}", first["boot_id"])
    assert later["boot_id"] == first["boot_id"]
    assert later["seq"] > first["seq"] == 1
    assert (first["scheme"], first["slots"], first["in_flight"]) == ("http", 2, 0)
    assert {"name", "model", "digest", "size", "details"} <= first["models"][0].keys()
    assert first["labels"] == {"gpu": "a100"}
    assert first["disk_free"] > 0
    assert later["loaded"][0].keys() == {"name", "size", "size_vram", "expires_at"}
    assert first["draining"] is False
    assert first["fault"] == ""


async def test_a_job_of_a_former_hub_streams_from_this_node(
    agent: RunningAgent, hub: OldHub
) -> None:
    await hub.until()
    status, lines = await run_job(
        hub, model="tiny:latest", prompt="hi", options={"num_predict": 5}
    )

    assert status == 200
    assert len(lines) == 6
    assert lines[-1]["done"] is True


async def test_a_job_without_stream_is_one_object(
    agent: RunningAgent, hub: OldHub
) -> None:
    await hub.until()
    status, lines = await run_job(hub, model="tiny:latest", prompt="hi", stream=False)

    assert (status, len(lines)) == (200, 1)
    assert lines[0]["response"]


async def test_a_hub_with_strict_keys_gets_the_former_ones(
    simulator: tuple[str, Simulator], tmp_path: Path
) -> None:
    async with (
        old_hub(has_strict_keys=True) as hub,
        running_agent(tmp_path, SERVER_URL=hub.url, OLLAMA_BASE_URL=simulator[0]),
    ):
        beat = await hub.until(3)

    assert "agent" not in beat
    assert len(hub.refused) == 1


async def test_a_hub_that_restarts_knows_the_node_after_one_interval(
    agent: RunningAgent, hub: OldHub
) -> None:
    await hub.until()
    await hub.away()
    await asyncio.sleep(1.5)
    known = len(hub.beats)
    await hub.back()

    await hub.until(known + 1, within_s=20)
    assert hub.nodes.keys() == {"gpu-1"}


async def test_an_agent_that_begins_before_its_hub_finds_it(
    simulator: tuple[str, Simulator], tmp_path: Path
) -> None:
    hub = OldHub(port=held_port())
    async with running_agent(
        tmp_path, SERVER_URL=hub.url, OLLAMA_BASE_URL=simulator[0]
    ):
        await asyncio.sleep(0.5)
        await hub.back()
        await hub.until()
    await hub.away()


async def test_a_slow_hub_holds_up_neither_beats_nor_jobs(
    simulator: tuple[str, Simulator], tmp_path: Path
) -> None:
    async with (
        old_hub(slow_s=1.5) as hub,  # more than the interval of 1 s, which is the limit
        running_agent(
            tmp_path, SERVER_URL=hub.url, OLLAMA_BASE_URL=simulator[0]
        ) as agent,
        aiohttp.ClientSession() as session,
    ):
        job = {"model": "tiny", "prompt": "hi", "stream": False}
        async with session.post(f"{agent.url}/execute", json=job) as answer:
            assert answer.status == 200


async def test_an_ollama_that_is_away_has_no_models_and_the_beat_says_so(
    hub: OldHub, tmp_path: Path
) -> None:
    away = f"http://127.0.0.1:{held_port()}"
    async with running_agent(tmp_path, SERVER_URL=hub.url, OLLAMA_BASE_URL=away):
        beat = await hub.until()
        status, lines = await run_job(hub, model="tiny:latest", prompt="hi")

    assert beat["models"] == []
    assert beat["agent"]["fault"].startswith(f"the Ollama at {away} can't be asked")
    assert status == 503
    assert lines[0]["detail"] == "No healthy nodes available for requested model"


async def test_a_hub_soon_learns_that_ollama_went_and_came_back(
    hub: OldHub, tmp_path: Path
) -> None:
    app = build_simulator(Manners(rate=100.0), models=["tiny"])
    port = held_port()

    async def begin() -> web.AppRunner:
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner

    runner = await begin()
    async with running_agent(
        tmp_path,
        SERVER_URL=hub.url,
        OLLAMA_BASE_URL=f"http://127.0.0.1:{port}",
        HEARTBEAT_INTERVAL="3600",
    ) as agent:
        await hub.until(1)
        await runner.cleanup()
        job = json.dumps({"model": "tiny", "prompt": "hi"}).encode()
        assert (await post(f"{agent.url}/execute", job))[0] == 502
        away = await hub.until(2)
        runner = await begin()
        back = await hub.until(3)
        await runner.cleanup()

    assert away["models"] == []
    assert back["models"] == ["tiny:latest"]


async def test_a_slow_ollama_has_no_models_and_the_beat_still_goes(
    hub: OldHub, simulator: tuple[str, Simulator], tmp_path: Path
) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with running_agent(tmp_path, SERVER_URL=hub.url, OLLAMA_BASE_URL=url):
        beat = await hub.until()
    server.close()

    assert beat["models"] == []
    assert beat["agent"]["fault"].endswith("did not answer within 1 s")


async def test_a_signal_tells_the_hub_and_lets_a_stream_end(
    agent: RunningAgent, hub: OldHub, simulator: tuple[str, Simulator]
) -> None:
    await hub.until()
    job = asyncio.ensure_future(run_job(hub, model="tiny:latest", prompt="hi"))
    async with asyncio.timeout(20):
        while not simulator[1].counters.working:
            await asyncio.sleep(0.01)
    await agent.end()
    status, lines = await job

    assert status == 200
    assert lines[-1]["done"] is True
    last = hub.beats[-1]
    assert last["agent"]["draining"] is True
    assert last["models"] == []  # so no former hub chooses it
    assert (await run_job(hub, model="tiny:latest", prompt="hi"))[0] == 503


async def test_a_node_rests_while_the_hub_drains_it(
    agent: RunningAgent, hub: OldHub
) -> None:
    await hub.until()
    hub.answer = {"status": "ok", "drain": True, "next_beat_s": 1}
    async with asyncio.timeout(20):
        while not (resting := hub.beats[-1])["agent"]["draining"]:
            await asyncio.sleep(0.01)
    job = json.dumps({"model": "tiny", "prompt": "hi", "stream": False}).encode()
    refused = (await post(f"{agent.url}/execute", job))[0]
    hub.answer = {"status": "ok"}
    async with asyncio.timeout(20):
        while hub.beats[-1]["agent"]["draining"]:
            await asyncio.sleep(0.01)
    taken = (await post(f"{agent.url}/execute", job))[0]

    assert resting["models"] == []
    assert len(resting["agent"]["models"]) == 2
    assert (refused, taken) == (503, 200)


async def test_a_health_check_asks_the_agent_and_not_the_ollama_that_it_guards(
    agent: RunningAgent, simulator: tuple[str, Simulator], tmp_path: Path
) -> None:
    env = {"OLLAMA_PROXY_STATE_DIR": str(tmp_path), "OLLAMA_HOST": simulator[0]}

    def check() -> str:
        return ask(env, None, now=time.perf_counter)

    assert await asyncio.to_thread(check) == f"http://127.0.0.1:{agent.port}"
    await agent.end()
    with pytest.raises(UnhealthyError):
        await asyncio.to_thread(check)


async def test_a_client_that_leaves_ends_the_generation(
    agent: RunningAgent, simulator: tuple[str, Simulator]
) -> None:
    async with aiohttp.ClientSession() as session:
        job = {"model": "tiny", "prompt": "hi", "options": {"num_predict": 100_000}}
        answer = await session.post(f"{agent.url}/execute", json=job)
        await answer.content.readline()
        answer.close()

    await until_idle(simulator[1])
    assert simulator[1].counters.cancelled == 1


async def test_a_client_that_leaves_before_the_answer_ends_the_generation(
    agent: RunningAgent, simulator: tuple[str, Simulator]
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    job = (
        b'{"model":"tiny","prompt":"hi","stream":false,"options":{"num_predict":9999}}'
    )
    head = b"POST /execute HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % len(job) + job)
    async with asyncio.timeout(20):
        while not simulator[1].counters.working:
            await asyncio.sleep(0.01)
    writer.close()

    await until_idle(simulator[1])
    assert simulator[1].counters.cancelled == 1


async def test_a_second_signal_cuts_a_stream(
    hub: OldHub, agent: RunningAgent, simulator: tuple[str, Simulator]
) -> None:
    job = {"model": "tiny", "prompt": "hi", "options": {"num_predict": 100_000}}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{agent.url}/execute", json=job) as answer,
    ):
        await answer.content.readline()
        agent.signals.put_nowait("SIGTERM")
        agent.signals.put_nowait("SIGTERM")
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    await until_idle(simulator[1])


async def test_the_first_line_says_what_it_does_and_who_may_ask(
    agent: RunningAgent, hub: OldHub, simulator: tuple[str, Simulator]
) -> None:
    assert agent.lines == [
        f"ollama-proxy node: 'gpu-1' reports {simulator[0]} to {hub.url} every 1 s, and"
        f" takes POST /execute on port {agent.port} from 127.0.0.1 alone"
        " (127.0.0.1)"
    ]


@pytest.mark.real_ollama
@pytest.mark.skipif(shutil.which("ollama") is None, reason="no `ollama` on the PATH")
@pytest.mark.skipif(not MODEL, reason="REAL_OLLAMA_MODEL names no model")
async def test_a_real_ollama_works_for_a_former_hub(
    hub: OldHub, tmp_path: Path
) -> None:
    async with (
        real_ollama() as url,
        running_agent(tmp_path, SERVER_URL=hub.url, OLLAMA_BASE_URL=url),
    ):
        beat = await hub.until()
        model = next(name for name in beat["models"] if name.startswith(MODEL))
        status, lines = await run_job(
            hub, model=model, prompt="hi", options={"num_predict": 3}
        )
        async with asyncio.timeout(20):
            while not (loaded := hub.beats[-1]["agent"]["loaded"]):
                await asyncio.sleep(0.05)

    assert status == 200, json.dumps(lines)
    assert lines[-1]["done"] is True
    assert loaded[0]["name"] == model
