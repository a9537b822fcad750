"""When beats go, in virtual time, with hubs that fail by name."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
from structlog.testing import LogCapture

from ollama_proxy.base.tasks import scoped_task
from ollama_proxy.node.beat import Facts, former_beat, whole_beat
from ollama_proxy.node.heartbeat import Heartbeat
from ollama_proxy.node.hub_answer import HubAnswer
from ollama_proxy.node.hub_client import HubAwayError, HubClient, HubRefusedError
from ollama_proxy.node.listed_models import Model
from ollama_proxy.node.local_ollama import OllamaState
from ollama_proxy.node.machine import Load
from tests.virtual_time import LoopClock, in_virtual_time

FACTS = Facts(
    node_id="gpu-1",
    host_name="box",
    ipv4="192.0.2.7",
    ipv6=None,
    port=8001,
    boot_id="0" * 32,
    seq=1,
    load=Load(0.1, 0.2),
    gpus=(),
    ollama=OllamaState((Model("tiny:latest", {"size": 7}),), version="0.33.0"),
    slots=None,
    in_flight=0,
    is_draining=False,
)


class FakeHub:
    """Notes when beats came; fails with ``trouble`` while it is set."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.trouble: Exception | None = None
        self.answer = HubAnswer()

    async def tell(self, _facts: Facts) -> HubAnswer:
        self.at.append(asyncio.get_running_loop().time())
        if self.trouble is not None:
            raise self.trouble
        return self.answer

    def pauses(self) -> list[float]:
        return [b - a for a, b in zip(self.at, self.at[1:], strict=False)]


async def facts() -> Facts:
    return FACTS


def beating(
    hub: FakeHub,
    clock: LoopClock | None = None,
    on_answer: Callable[[HubAnswer], bool] = lambda _: False,
) -> Heartbeat:
    return Heartbeat(
        cast("HubClient", hub),
        facts,
        interval_s=30,
        clock=clock or LoopClock(),
        rng=random.Random(7),
        on_answer=on_answer,
    )


@in_virtual_time
async def test_beats_go_every_interval_varied_by_a_tenth() -> None:
    hub = FakeHub()
    async with scoped_task(beating(hub).run()):
        await asyncio.sleep(3000)

    assert all(27 <= pause <= 33 for pause in hub.pauses())
    assert len({round(pause, 3) for pause in hub.pauses()}) > 50


@in_virtual_time
async def test_a_hub_that_is_away_is_asked_ever_less_but_every_interval() -> None:
    hub = FakeHub()
    hub.trouble = HubAwayError("refused")
    async with scoped_task(beating(hub).run()):
        await asyncio.sleep(600)
        assert hub.pauses()[0] < 2.5
        assert all(24 <= pause <= 30 for pause in hub.pauses()[5:])
        hub.trouble = None
        known = len(hub.at)
        await asyncio.sleep(31)

    assert len(hub.at) > known


@in_virtual_time
async def test_a_hub_that_refuses_is_asked_every_interval() -> None:
    hub = FakeHub()
    hub.trouble = HubRefusedError("409: another node has this name")
    async with scoped_task(beating(hub).run()):
        await asyncio.sleep(300)

    assert all(27 <= pause <= 33 for pause in hub.pauses())


@in_virtual_time
async def test_a_date_that_jumps_changes_no_beat() -> None:
    hub, clock = FakeHub(), LoopClock()
    async with scoped_task(beating(hub, clock).run()):
        await asyncio.sleep(100)
        clock.date_ahead_s = 1e9
        await asyncio.sleep(100)
        clock.date_ahead_s = -1e9
        await asyncio.sleep(100)

    assert all(27 <= pause <= 33 for pause in hub.pauses())


async def test_trouble_is_logged_once_and_so_is_its_end(
    errors_logged: LogCapture,
) -> None:
    hub = FakeHub()
    heartbeat = beating(hub)
    for trouble in (HubAwayError("a"), HubAwayError("a"), None, HubAwayError("a")):
        hub.trouble = trouble
        await heartbeat.beat()

    assert [entry["event"] for entry in errors_logged.entries] == ["hub.away"] * 2


@in_virtual_time
async def test_the_hub_sets_the_time_to_the_next_beat() -> None:
    hub = FakeHub()
    hub.answer = HubAnswer(next_beat_s=100)
    async with scoped_task(beating(hub).run()):
        await asyncio.sleep(1000)
        assert all(90 <= pause <= 110 for pause in hub.pauses())
        hub.answer = HubAnswer()
        known = len(hub.at)
        await asyncio.sleep(1000)

    assert all(27 <= pause <= 33 for pause in hub.pauses()[known:])


@in_virtual_time
async def test_a_hub_that_is_away_is_asked_as_the_settings_say() -> None:
    hub = FakeHub()
    hub.answer = HubAnswer(next_beat_s=3600)
    async with scoped_task(beating(hub).run()):
        await asyncio.sleep(1)
        hub.trouble = HubAwayError("refused")
        await asyncio.sleep(5000)

    assert len(hub.at) > 30
    assert max(hub.pauses()[1:]) <= 30


@in_virtual_time
async def test_a_hub_that_drains_a_node_soon_hears_of_it_again() -> None:
    hub = FakeHub()
    hub.answer = HubAnswer(next_beat_s=30, is_drained=True)
    async with scoped_task(beating(hub).run()):
        await asyncio.sleep(100)

    assert all(4.5 <= pause <= 5.5 for pause in hub.pauses())


@in_virtual_time
async def test_a_change_goes_at_once_but_no_hub_makes_beats_hurry_for_ever() -> None:
    hub = FakeHub()
    async with scoped_task(beating(hub, on_answer=lambda _: True).run()):
        await asyncio.sleep(20)

    assert all(pause == pytest.approx(1) for pause in hub.pauses())


async def test_a_message_of_the_hub_is_logged_once_per_change(
    errors_logged: LogCapture,
) -> None:
    hub = FakeHub()
    heartbeat = beating(hub)
    for message in ("update", "update", "", "", "move", "update"):
        hub.answer = HubAnswer(message=message)
        await heartbeat.beat()

    assert [entry["reason"] for entry in errors_logged.entries] == [
        "update",
        "move",
        "update",
    ]


def test_a_node_that_drains_has_no_models_for_a_former_hub() -> None:
    draining = replace(FACTS, is_draining=True)

    assert former_beat(FACTS)["models"] == ["tiny:latest"]
    assert former_beat(draining)["models"] == []
    assert [m["name"] for m in whole_beat(draining)["agent"]["models"]] == [
        "tiny:latest"
    ]
