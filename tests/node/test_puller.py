"""A node pulls what its hub wants: one at a time, with progress, and pauses."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytest_aiohttp.plugin import AiohttpServer
from structlog.testing import capture_logs

from ollama_proxy.base.tasks import scoped_task
from ollama_proxy.core.nodes.wanted import RESERVE
from ollama_proxy.node.local_ollama import LocalOllama
from ollama_proxy.node.puller import Puller
from ollama_proxy.node.workload import Workload
from ollama_proxy.simulator.server import SIMULATOR, Manners, build_simulator
from ollama_proxy.simulator.state import Simulator
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.endpoint import Upstream
from ollama_proxy.upstream.loop_mark import LoopMark
from tests.fakes.old_hub import old_hub
from tests.fakes.raw_upstream import Script, raw_upstream, reply
from tests.node.agents import running_agent
from tests.virtual_time import SetClock

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n"


@contextlib.asynccontextmanager
async def pulling(
    script: Script, *, silence_s: float = 20.0, free: int | None = None
) -> AsyncIterator[tuple[Puller, SetClock, Workload, list[bytes]]]:
    """Run a puller before an Ollama that answers pulls by ``script``."""
    asked: list[bytes] = []

    async def room() -> int | None:
        return free

    async def either(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if upstream.heads[-1].startswith(b"GET"):
            writer.write(reply(b"{}"))
            return
        length = int(upstream.heads[-1].partition(b"Content-Length: ")[2].split()[0])
        asked.append(await reader.readexactly(length))
        await script(reader, writer)

    async with raw_upstream(either) as upstream:
        client, clock, workload = UpstreamClient(LoopMark("a")), SetClock(), Workload()
        puller = Puller(
            client,
            LocalOllama(client, Upstream(upstream.url)),
            workload,
            Upstream(upstream.url),
            clock=clock,
            rng=random.Random(1),
            on_pulled=lambda: None,
            free=room,
            silence_s=silence_s,
        )
        try:
            async with scoped_task(puller.run()):
                yield puller, clock, workload, asked
        finally:
            await client.aclose()


async def until(number: int, asked: list[bytes]) -> None:
    async with asyncio.timeout(20):
        while len(asked) < number:
            await asyncio.sleep(0.01)


async def never(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
async def test_a_model_that_is_larger_than_the_hub_was_told_fills_no_disk(
    spare: int, fits: bool
) -> None:
    async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = b'{"status":"pulling x","digest":"sha256:a","total":9000,"completed":9}'
        writer.write(HEAD + b"\r\n" + line + b"\n")
        await reader.read()  # until the agent has hung up

    with capture_logs() as lines:
        async with pulling(large, free=RESERVE + 8991 + spare) as (puller, *_, asked):
            puller.want(["big"])
            await until(1, asked)
            async with asyncio.timeout(20):
                while fits and not (puller.pulling or {}).get("total"):
                    await asyncio.sleep(0.01)
                while not fits and puller.pulling is not None:
                    await asyncio.sleep(0.01)

    refused = [one for one in lines if "still to come" in one.get("reason", "")]
    assert bool(refused) is not fits


@pytest.mark.parametrize(
    "answer",
    [
        b'{"status":"pulling manifest"}\n{"error":"pull model manifest: no such"}\n',
        b'{"status":"pulling manifest"}\n',
        b"x" * 100_000,
        b"",
    ],
    ids=["error", "half", "strange", "nothing"],
)
async def test_a_pull_that_fails_is_tried_again_after_growing_pauses(
    answer: bytes,
) -> None:
    async def fail(_r: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = b"Content-Length: %d\r\n\r\n" % len(answer)
        writer.write(HEAD + length + answer)
        await writer.drain()
        writer.close()

    async with pulling(fail) as (puller, clock, _, asked):
        for number, pause_s in enumerate((60, 120, 240), start=1):
            puller.want(("a",))
            await until(number, asked)
            async with asyncio.timeout(20):
                while puller.pulling is not None:
                    await asyncio.sleep(0.01)
            clock.moment += pause_s * 0.7
            puller.want(("a",))
            await asyncio.sleep(0.05)
            assert len(asked) == number
            clock.moment += pause_s * 0.6


async def test_an_ollama_that_reports_nothing_more_is_given_up() -> None:
    async with pulling(never, silence_s=0.05) as (puller, clock, _, asked):
        puller.want(("a",))
        await until(1, asked)
        async with asyncio.timeout(20):
            while puller.pulling is not None:
                await asyncio.sleep(0.01)
        clock.moment += 100
        puller.want(("a",))
        await until(2, asked)


async def test_a_pull_ends_when_it_is_wanted_no_more_and_the_next_one_begins() -> None:
    async with pulling(never) as (puller, _, _, asked):
        puller.want(("a", "b"))
        await until(1, asked)
        puller.want(("b",))
        await until(2, asked)

    assert [b'"a"' in asked[0], b'"b"' in asked[1]] == [True, True]


async def test_a_node_that_drains_pulls_nothing() -> None:
    async with pulling(never) as (puller, _, workload, asked):
        puller.want(("a",))
        await until(1, asked)
        workload.is_drained = True
        puller.want(("a",))
        async with asyncio.timeout(20):
            while puller.pulling is not None:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(asked) == 1
        workload.is_drained = False
        puller.want(("a",))
        await until(2, asked)


@pytest.fixture
async def simulator(aiohttp_server: AiohttpServer) -> tuple[str, Simulator]:
    app = build_simulator(Manners(pull_s=3.0), models=["tiny"])
    server = await aiohttp_server(app, auto_decompress=False, shutdown_timeout=0.1)
    return str(server.make_url("")).rstrip("/"), app[SIMULATOR]


async def test_the_hub_sees_the_progress_and_then_the_model(
    simulator: tuple[str, Simulator], tmp_path: Path
) -> None:
    async with (
        old_hub() as hub,
        running_agent(tmp_path, SERVER_URL=hub.url, OLLAMA_BASE_URL=simulator[0]),
    ):
        foreign = "10.0.0.1/a/b"  # this agent does not know whether it is its hub
        hub.answer = {"status": "ok", "wanted_models": [foreign, "big:latest", "tiny"]}
        seen = []
        async with asyncio.timeout(30):
            while not (hub.beats and "big:latest" in hub.beats[-1]["models"]):
                if hub.beats and (pull := hub.beats[-1]["agent"]["pulling"]):
                    seen.append(pull)
                await asyncio.sleep(0.02)
        last = hub.beats[-1]

    assert seen[-1]["name"] == "big:latest"
    assert 0 < seen[-1]["completed"] <= seen[-1]["total"]
    assert last["agent"]["pulling"] is None
