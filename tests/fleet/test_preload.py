"""An instance is given the models that it lacks, whatever cuts a pull."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from ollama_proxy.core.http.headers import GUARD_HEADER
from ollama_proxy.core.lifecycle.record import Stage
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.readiness import HttpProbe, PreparationError
from ollama_proxy.simulator.faults import Faults
from ollama_proxy.simulator.server import Manners
from ollama_proxy.upstream.endpoint import Link
from tests.fleet.probed import picky_server, probed, steps


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
