"""Two offers in one account: each looks after its own instances."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.backends.exoscale.backend import ExoscaleBackend
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from ollama_proxy.fleet.offer_tag import OfferTag
from tests.backends.driving import started, until
from tests.backends.exoscale.rig import OWNER, Rig, exoscale_rig
from tests.backends.exoscale.test_standby import FIRST, SECOND, standby
from tests.fakes.exoscale.cloud import Timing
from tests.fakes.exoscale.guest import files_of, read_user_data

FIRST_OFFER = OfferTag("", frozenset({"geneva"}))
SECOND_OFFER = OfferTag("geneva", frozenset({""}), takes_leftovers=False)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    timing = Timing(operation_s=0.02, boot_s=0.05, leave_s=0.05)
    async with exoscale_rig(tmp_path, timing) as made:
        yield made


@pytest.fixture
async def first(rig: Rig) -> AsyncIterator[ExoscaleBackend]:
    rig.offer = FIRST_OFFER
    opened = rig.open()
    yield opened
    await opened.aclose()


@pytest.fixture
async def second(rig: Rig) -> AsyncIterator[ExoscaleBackend]:
    rig.offer = SECOND_OFFER
    opened = rig.open(idle_action="stop")
    yield opened
    await opened.aclose()


async def test_what_the_other_offer_keeps_is_neither_ended_nor_taken(
    rig: Rig, first: ExoscaleBackend, second: ExoscaleBackend
) -> None:
    await standby(second)
    (kept,) = rig.cloud.instances.values()
    strays = await first.owned()
    await started(first, SECOND)
    await until(first, SECOND, Phase.RUNNING)

    assert kept.labels["offer"] == "ogeneva"
    assert list(strays) == []
    assert rig.cloud.state(kept) == "stopped"
    assert rig.cloud.bought == 2
    assert set(await first.owned()) == {SECOND}
    assert set(await second.owned()) == set()


async def test_the_last_instance_of_one_leaves_the_other_its_group(
    rig: Rig, first: ExoscaleBackend, second: ExoscaleBackend
) -> None:
    await started(first, FIRST)
    await started(second, SECOND)
    await until(first, FIRST, Phase.RUNNING)
    await until(first, FIRST, Phase.GONE, stops=True)
    await first.tidy()
    names = {group["name"] for group in rig.cloud.groups.values()}

    assert names == {f"ollama-proxy-{OWNER}-geneva"}


async def test_what_an_offer_left_that_is_no_more_is_seen_to_by_the_first(
    rig: Rig, second: ExoscaleBackend
) -> None:
    await standby(second)
    rig.offer = OfferTag()
    left = rig.open()
    (name,) = await left.owned()
    await left.stop(name)
    await left.aclose()
    (instance,) = rig.cloud.instances.values()

    assert not rig.cloud.exists(instance) or rig.cloud.state(instance) == "destroying"


async def test_the_group_of_an_offer_counts_as_its_owners(
    rig: Rig, first: ExoscaleBackend, second: ExoscaleBackend
) -> None:
    await started(second, SECOND)
    groups = [one for one in await first.belongings() if one.id.startswith("group ")]
    await until(second, SECOND, Phase.RUNNING)
    await until(second, SECOND, Phase.GONE, stops=True)

    assert [one.owner_id for one in groups] == [OWNER]


async def test_the_variables_of_an_offer_reach_ollama(rig: Rig) -> None:
    rig.environment = {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_KEEP_ALIVE": "30m"}
    backend = rig.open()
    await started(backend, FIRST)
    (instance,) = rig.cloud.instances.values()
    files = files_of(read_user_data(instance.body["user-data"]))
    await until(backend, FIRST, Phase.RUNNING)
    await until(backend, FIRST, Phase.GONE, stops=True)
    await backend.aclose()

    lines = files["/etc/ollama-proxy/ollama.env"].splitlines()
    assert lines.count("OLLAMA_NUM_PARALLEL=4") == 1
    assert [line for line in lines if line.startswith("OLLAMA_KEEP_ALIVE")] == [
        "OLLAMA_KEEP_ALIVE=30m"
    ]


async def test_what_is_kept_with_other_variables_is_not_taken(rig: Rig) -> None:
    before = rig.open(idle_action="stop")
    await standby(before)
    rig.environment = {"OLLAMA_NUM_PARALLEL": "4"}
    after = rig.open(idle_action="stop")
    await started(after, SECOND)
    bought = rig.cloud.bought
    await until(after, SECOND, Phase.RUNNING)
    for backend in (before, after):
        await backend.aclose()

    assert bought == 2


async def test_two_launches_at_once_never_share_what_stands_by(rig: Rig) -> None:
    backend = rig.open(idle_action="stop")
    await standby(backend)
    third = LaunchId("l00000000000000ab")
    await asyncio.gather(started(backend, SECOND), started(backend, third))
    for launch_id in (SECOND, third):
        await until(backend, launch_id, Phase.RUNNING)
    found = set(await backend.owned())
    for launch_id in (SECOND, third):
        await until(backend, launch_id, Phase.GONE, stops=True)
    await backend.aclose()

    assert found == {SECOND, third}
    assert rig.cloud.bought == 2
