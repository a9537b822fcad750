"""The levels of readiness, asked of a simulator on a real socket."""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ollama_proxy.core.lifecycle.record import Progress, Stage
from ollama_proxy.core.ollama.load_wish import LoadWish
from ollama_proxy.fleet.adaptive_timeout import ProbeTimeout
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.probe_reply import listed_models
from ollama_proxy.fleet.readiness import HttpProbe, PreparationError
from ollama_proxy.simulator.faults import Faults
from ollama_proxy.simulator.models import Model, ModelStore
from ollama_proxy.simulator.server import Manners
from tests.fleet.probed import picky_server, probed, steps


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


def test_a_list_of_models_that_is_nested_too_deep_is_a_fault_of_the_instance() -> None:
    with pytest.raises(PreparationError, match="list of models can't be read"):
        listed_models(b'{"x":' + b"[" * 100_000)


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
