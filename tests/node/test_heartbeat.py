"""When beats go, in virtual time, with hubs that fail by name."""

import asyncio
import random
from dataclasses import replace
from typing import cast

from structlog.testing import LogCapture

from ollama_proxy.base.tasks import scoped_task
from ollama_proxy.node.beat import Facts, former_beat, whole_beat
from ollama_proxy.node.heartbeat import Heartbeat
from ollama_proxy.node.hub_client import HubAwayError, HubClient, HubRefusedError
from ollama_proxy.node.local_ollama import Model, OllamaState
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
    ollama=OllamaState((Model("tiny:latest", "abc", 7),), version="0.33.0"),
    slots=None,
    in_flight=0,
    is_draining=False,
)


class FakeHub:
    """Notes when beats came; fails with ``trouble`` while it is set."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.trouble: Exception | None = None

    async def tell(self, _facts: Facts) -> None:
        self.at.append(asyncio.get_running_loop().time())
        if self.trouble is not None:
            raise self.trouble

    def pauses(self) -> list[float]:
        return [b - a for a, b in zip(self.at, self.at[1:], strict=False)]


async def facts() -> Facts:
    return FACTS


def beating(hub: FakeHub, clock: LoopClock | None = None) -> Heartbeat:
    return Heartbeat(
        cast("HubClient", hub),
        facts,
        interval_s=30,
        clock=clock or LoopClock(),
        rng=random.Random(7),
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


def test_a_node_that_drains_has_no_models_for_a_former_hub() -> None:
    draining = replace(FACTS, is_draining=True)

    assert former_beat(FACTS)["models"] == ["tiny:latest"]
    assert former_beat(draining)["models"] == []
    assert [m["name"] for m in whole_beat(draining)["agent"]["models"]] == [
        "tiny:latest"
    ]
