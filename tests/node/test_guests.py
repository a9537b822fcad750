"""Peers that are not at the hub's addresses have a moment to show its token."""

import asyncio
import socket
from pathlib import Path
from typing import cast

import aiohttp
import pytest

from ollama_proxy.node.door import Guests
from ollama_proxy.node.machine import own_address
from tests.node.agents import HUB_TOKEN, JOINED, running_agent
from tests.ports import held_port
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


async def test_a_guest_gets_nothing_without_the_token_but_the_proof_of_a_nonce(
    tmp_path: Path,
) -> None:
    """Asked at an address of this machine that is neither loopback nor the hub's."""
    own = own_address(socket.AF_INET, "192.0.2.1")
    if own is None or own.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    nonce = "n" * 32
    fields = {"Authorization": f"Bearer {HUB_TOKEN}"}
    async with (
        running_agent(
            tmp_path,
            access=JOINED,
            SERVER_URL="http://127.0.0.1:9",
            OLLAMA_BASE_URL=f"http://127.0.0.1:{held_port()}",
        ) as agent,
        aiohttp.ClientSession() as session,
    ):
        url = f"http://{own}:{agent.port}"
        statuses = []
        for path, headers in (
            ("/healthz", {}),
            ("/api/tags", {}),
            ("/healthz", fields),
            ("/api/tags", fields),
        ):
            async with session.get(f"{url}{path}", headers=headers) as answer:
                statuses.append(answer.status)
        async with session.get(f"{url}/healthz?nonce={nonce}") as answer:
            proof = (await answer.json())["proof"]

    assert statuses == [401, 401, 200, 502]
    assert proof == JOINED.proof(nonce)
