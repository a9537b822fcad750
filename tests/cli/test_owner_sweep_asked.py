"""What an owner has is looked at again once a person has agreed to its deletion."""

from dataclasses import replace

import pytest

from ollama_proxy.cli.owner_sweep import OwnerSweep
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Belonging
from tests.virtual_time import JumpingClock

LOST = "aaaaaaaaaaaaaaaa"


class Cloud:
    """A cloud with one thing that can be deleted or estranged."""

    def __init__(self, one: Belonging) -> None:
        self.there = [one]
        self.touched: list[str] = []

    async def belongings(self) -> list[Belonging]:
        return list(self.there)

    async def discard(self, one: Belonging) -> bool:
        self.touched.append(one.id)
        return True

    async def estrange(self, one: Belonging) -> None:
        self.touched.append(one.id)


@pytest.mark.parametrize("verb", ["delete", "estrange"])
async def test_what_a_proxy_took_up_while_a_person_thought_is_left_alone(
    verb: str,
) -> None:
    clock = JumpingClock()
    launch = LaunchId("l1111111111111111")
    rests = Belonging("m1", "machine m1", LOST, "stopped", launch, runs=False)
    cloud = Cloud(rests)
    sweep = OwnerSweep(cloud, owner_id=None, clock=clock, note=lambda _: None)
    told: list[str] = []

    def ask(_question: str) -> None:
        until = clock.wall() + 900.0
        cloud.there = [replace(rests, state="started", runs=True, lease_end=until)]

    is_done = await getattr(sweep, verb)(LOST, (), told.append, ask)

    assert cloud.touched == []
    assert not is_done
    assert any(line.startswith("left alone: ") for line in told)
