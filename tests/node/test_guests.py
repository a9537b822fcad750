"""Peers that are not at the hub's addresses have a moment to show its token."""

import asyncio
from typing import cast

from ollama_proxy.node.door import Guests
from tests.virtual_time import in_virtual_time


class FakeTransport:
    """Notes that it was aborted."""

    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


def receive(guests: Guests) -> FakeTransport:
    guest = FakeTransport()
    guests.receive(cast("asyncio.Transport", guest))
    return guest


@in_virtual_time
async def test_a_guest_without_the_token_is_turned_out_in_time() -> None:
    guests = Guests()
    idle, known = receive(guests), receive(guests)
    await asyncio.sleep(9)
    guests.admit(cast("asyncio.Transport", known))
    assert not idle.is_aborted
    await asyncio.sleep(2)

    assert (idle.is_aborted, known.is_aborted, len(guests)) == (True, False, 0)


@in_virtual_time
async def test_the_oldest_guest_makes_room() -> None:
    guests = Guests(most=2)
    first, second, third = (receive(guests) for _ in range(3))

    assert [one.is_aborted for one in (first, second, third)] == [True, False, False]
    assert len(guests) == 2
