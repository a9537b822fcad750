"""The levels of readiness, asked of a simulator on a real socket."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ollama_proxy.core.http.headers import GUARD_HEADER
from ollama_proxy.core.lifecycle.record import Progress, Stage
from ollama_proxy.core.ollama.load_wish import LoadWish
from ollama_proxy.fleet.adaptive_timeout import ProbeTimeout
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.readiness import HttpProbe, PreparationError
from ollama_proxy.simulator.faults import Faults
from ollama_proxy.simulator.models import Model, ModelStore
from ollama_proxy.simulator.server import (
    SIMULATOR,
    Manners,
    Simulator,
    build_simulator,
)
from ollama_proxy.upstream.endpoint import Link


@contextlib.asynccontextmanager
async def probed(
    manners: Manners, *models: str
) -> AsyncIterator[tuple[HttpProbe, Upstream, Simulator]]:
    app = build_simulator(manners, models=models)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as session:
        yield HttpProbe(session), Upstream(url), app[SIMULATOR]
    await runner.cleanup()


async def steps(
    probe: HttpProbe, upstream: Upstream, wanted: list[str], model: str | None = None
) -> list[Progress]:
    return [step async for step in probe.prepare(upstream, wanted, model)]


@contextlib.asynccontextmanager
async def behind_a_cutting_gateway(
    steps_per_answer: int, marks: bool = True
) -> AsyncIterator[tuple[HttpProbe, Upstream, list[int]]]:
    """Serve a pull of ten steps, of which each answer tells so many before it ends."""
    done = [0]

    async def answer(request: web.Request) -> web.StreamResponse:
        marked = {GUARD_HEADER: "1"} if marks else {}
        match request.path:
            case "/api/version":
                return web.json_response({"version": "0.33.0"}, headers=marked)
            case "/api/tags":
                return web.json_response({"models": []}, headers=marked)
            case "/api/generate" | "/api/ps":
                return web.json_response({}, headers=marked)
        response = web.StreamResponse(headers=marked)
        await response.prepare(request)
        for _ in range(steps_per_answer):
            done[0] += 1
            line = {"status": "pulling", "completed": done[0], "total": 10}
            last = {"status": "success"} if done[0] > 10 else line
            await response.write(json.dumps(last).encode() + b"\n")
            if done[0] > 10:
                return response
        await asyncio.sleep(0.02)
        assert request.transport is not None
        request.transport.abort()
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as session:
        link = Link("token", is_marked=True)
        yield HttpProbe(session), Upstream(url, link), done
    await runner.cleanup()


async def test_a_pull_that_a_gateway_cuts_goes_on_as_long_as_it_gets_further() -> None:
    async with behind_a_cutting_gateway(4) as (probe, upstream, done):
        seen = await steps(probe, upstream, ["new"])

    assert seen[-1].stage is Stage.LOADING
    assert done == [11]


async def test_a_pull_that_a_gateway_cuts_at_once_is_given_up() -> None:
    async with behind_a_cutting_gateway(0) as (probe, upstream, _):
        with pytest.raises(PreparationError, match="broke off while pulling"):
            async with asyncio.timeout(5):
                await steps(probe, upstream, ["new"])


async def test_a_gateway_that_answers_for_the_instance_is_not_the_instance() -> None:
    async with behind_a_cutting_gateway(4, marks=False) as (probe, upstream, _):
        assert not await probe.alive(upstream)


async def test_missing_models_are_pulled_with_progress_and_the_first_is_loaded() -> (
    None
):
    async with probed(Manners(), "there") as (probe, upstream, simulator):
        seen = await steps(probe, upstream, ["new", "there"])

        stages = list(dict.fromkeys(step.stage for step in seen))
        assert stages == [Stage.CONNECTING, Stage.PULLING, Stage.LOADING]
        fractions = [
            step.fraction
            for step in seen
            if step.stage is Stage.PULLING and step.fraction
        ]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
        assert list(simulator.store.running()) == ["new:latest"]


async def test_the_fraction_of_several_pulls_never_falls() -> None:
    async with probed(Manners()) as (probe, upstream, _):
        seen = await steps(probe, upstream, ["one", "two", "three"])
        fractions = [step.fraction for step in seen if step.stage is Stage.PULLING]
        known = [fraction for fraction in fractions if fraction is not None]

        assert len(known) == len(fractions)
        assert known == sorted(known)
        assert known[-1] == 1.0


async def test_without_wanted_models_the_asked_one_is_loaded_if_present() -> None:
    async with probed(Manners(), "there") as (probe, upstream, simulator):
        await steps(probe, upstream, [], "there")
        await steps(probe, upstream, [], "absent")

        assert list(simulator.store.running()) == ["there:latest"]


async def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    async with aiohttp.ClientSession() as session:
        probe = HttpProbe(session)
        walk = probe.prepare(Upstream("http://127.0.0.1:9"), [], None)
        assert await anext(walk) == Progress(Stage.CONNECTING)
        async with asyncio.timeout(5.0):
            waits = [await anext(walk) for _ in range(3)]

    assert {step.stage for step in waits} == {Stage.CONNECTING}
    assert "nothing listens there (connection refused)" in waits[0].problem
    assert not waits[0].needs_person


async def test_a_model_that_does_not_exist_is_a_final_fault() -> None:
    async with probed(Manners()) as (probe, upstream, _):
        with pytest.raises(PreparationError, match="does not exist") as caught:
            await steps(probe, upstream, ["missing"])

    assert caught.value.fault.final


@pytest.mark.parametrize(
    ("said", "reason", "final"),
    [
        ("pull model manifest: file does not exist", "pull", True),
        ("invalid model name", "pull", True),
        ("pull model manifest: Get https://x: dial tcp: host not found", "pull", False),
        ("lookup registry.ollama.ai: does not exist", "pull", False),
        ("write /root/.ollama/x: no space left on device", "disk", False),
        ("max retries exceeded: EOF", "pull", False),
    ],
)
async def test_only_what_the_registry_says_is_final(
    said: str, reason: str, final: bool
) -> None:
    async with (
        picky_server("there", 400, said) as asked,
        aiohttp.ClientSession() as session,
    ):
        with pytest.raises(PreparationError) as caught:
            await steps(HttpProbe(session), Upstream(asked[0]), ["new"])

    fault = caught.value.fault
    assert (fault.reason, fault.final) == (reason, final)
    assert said in fault.message


async def test_a_pull_that_ends_without_success_is_a_fault() -> None:
    manners = Manners()
    async with probed(manners) as (probe, upstream, _):
        manners.faults = Faults(end_after=3)
        with pytest.raises(PreparationError, match="it ended with 'pulling"):
            await steps(probe, upstream, ["new"])


async def test_a_pull_that_is_cut_is_a_fault_that_may_pass() -> None:
    manners = Manners()
    async with probed(manners) as (probe, upstream, _):
        manners.faults = Faults(reset_after=3)
        with pytest.raises(PreparationError, match="broke off while pulling") as caught:
            await steps(probe, upstream, ["new"])

    assert not caught.value.fault.final


@contextlib.asynccontextmanager
async def picky_server(model: str, status: int, error: str) -> AsyncIterator[list[str]]:
    """Serve one model whose generate fails; yield the URL, then what was asked."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        bodies = {
            "/api/version": {"version": "1.0.0"},
            "/api/tags": {"models": [{"name": model}]},
            "/api/embed": {"model": model, "embeddings": []},
        }
        if request.path in bodies:
            return web.json_response(bodies[request.path])
        return web.json_response({"error": error}, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    asked.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield asked
    await runner.cleanup()


async def test_a_load_that_fails_is_told_in_the_servers_words() -> None:
    words = "cudaMalloc failed: out of memory"
    async with (
        picky_server("big", 500, words) as asked,
        aiohttp.ClientSession() as session,
    ):
        with pytest.raises(PreparationError, match=words):
            await steps(HttpProbe(session), Upstream(asked[0]), ["big"])


async def test_a_model_that_only_embeds_is_loaded_by_an_embedding() -> None:
    words = '"nomic" does not support generate'
    async with (
        picky_server("nomic", 400, words) as asked,
        aiohttp.ClientSession() as session,
    ):
        await steps(HttpProbe(session), Upstream(asked[0]), ["nomic"])

    assert asked[-2:] == ["/api/generate", "/api/embed"]


async def test_a_configured_model_is_loaded_plainly_where_a_clients_options_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = ModelStore.load

    async def load_small(
        store: ModelStore, model: Model, runner: dict[str, Any]
    ) -> None:
        if runner:
            raise web.HTTPBadRequest(text="model requires more system memory")
        await load(store, model, runner)

    monkeypatch.setattr(ModelStore, "load", load_small)
    async with probed(Manners(), "big", "other") as (probe, upstream, simulator):
        probe._wishes.add(LoadWish("big", b'{"num_ctx":1000000}'))
        seen = await steps(probe, upstream, ["big"])

        assert [step.detail for step in seen if step.stage is Stage.LOADING] == [
            "big",
            "big",
        ]
        assert simulator.store.loaded_with == {"big:latest": {}}


async def test_a_model_that_is_loaded_as_somebody_wanted_it_stays_so() -> None:
    async with probed(Manners(), "a", "b") as (probe, upstream, simulator):
        model = simulator.store.models["a:latest"]
        await simulator.store.load(model, {"num_ctx": 8192})
        await steps(probe, upstream, ["a"])
        await steps(probe, upstream, [], "a")

        assert simulator.store.loads == 1


async def test_the_contents_are_asked_byte_for_byte() -> None:
    async with probed(Manners(), "a", "b") as (probe, upstream, _):
        contents = await probe.contents(upstream)

        assert contents.version == "0.33.0"
        assert set(contents.shows) == {"a:latest", "b:latest"}
        assert contents.tags.startswith(b'{"models":[{"name":"a:latest"')


async def test_a_slow_server_is_not_alive_within_the_time_out() -> None:
    manners = Manners(faults=Faults(delay=5.0))
    async with probed(manners) as (probe, upstream, _):
        probe._timeout = ProbeTimeout(floor_s=0.1)

        assert not await probe.alive(upstream)


def test_the_time_out_grows_with_what_was_measured_and_with_misses() -> None:
    timeout = ProbeTimeout(floor_s=2.0, ceiling_s=30.0)
    assert timeout.seconds == 2.0
    timeout.answered(3.0)
    assert timeout.seconds == 9.0
    timeout.missed()
    assert timeout.seconds == 18.0
    timeout.missed()
    assert timeout.seconds == 30.0
    for _ in range(50):
        timeout.answered(0.01)

    assert timeout.seconds == pytest.approx(2.0, abs=0.1)
