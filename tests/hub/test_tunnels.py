"""Requests get idle tunnels of their node, or wait for one; and all is bounded."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from ollama_proxy.base.tasks import start_task
from ollama_proxy.hub.tunnels import NoPlaceError, Tunnels, tunnel_upstream
from ollama_proxy.upstream.connection import Connection
from ollama_proxy.upstream.tunnel_transport import TunnelTransport
from tests.upstream.test_tunnel_transport import FakeWebSocket


def connection() -> Connection:
    return Connection(lambda _: None)


@contextlib.asynccontextmanager
async def tunnel_of(tunnels: Tunnels, node_id: str) -> AsyncIterator[TunnelTransport]:
    tunnel = TunnelTransport(FakeWebSocket())
    with tunnels.place(node_id):
        task = start_task(tunnels.carry(node_id, tunnel))
        await asyncio.sleep(0)
        try:
            yield tunnel
        finally:
            tunnel.abort()
            await task


def tunnels(
    *, most: int = 4096, most_per_node: int = 66, wait_s: float = 20.0
) -> Tunnels:
    return Tunnels(
        lambda _: None, most=most, most_per_node=most_per_node, wait_s=wait_s
    )


async def test_the_newest_idle_tunnel_is_taken() -> None:
    held = tunnels()
    one = connection()
    async with tunnel_of(held, "a"), tunnel_of(held, "a") as newest:
        assert held.count("a") == (2, 2)
        await held.dial("a", one)

        assert newest.get_protocol() is one
        assert held.count("a") == (2, 1)


async def test_a_tunnel_that_is_about_to_end_is_passed_over() -> None:
    held = tunnels()
    async with tunnel_of(held, "a") as first, tunnel_of(held, "a") as second:
        second.close()
        await held.dial("a", connection())

        assert first.was_used
        assert not second.was_used


async def test_who_waits_longest_is_served_first() -> None:
    held = tunnels()
    both = [connection(), connection()]
    tasks = [start_task(held.dial("a", one)) for one in both]
    await asyncio.sleep(0)
    async with tunnel_of(held, "a") as first:
        await tasks[0]
        assert first.get_protocol() is both[0]
        assert not tasks[1].done()
        async with tunnel_of(held, "a"):
            await tasks[1]


async def test_a_client_that_left_while_it_waited_takes_no_tunnel() -> None:
    held = tunnels()
    task = start_task(held.dial("a", connection()))
    await asyncio.sleep(0)
    task.cancel()
    async with tunnel_of(held, "a"):
        await asyncio.wait({task})

        assert held.count("a") == (1, 1)


async def test_a_client_that_leaves_as_its_tunnel_comes_ends_that_tunnel() -> None:
    held = tunnels()
    task = start_task(held.dial("a", connection()))
    await asyncio.sleep(0)
    async with tunnel_of(held, "a") as tunnel:
        task.cancel()
        await asyncio.wait({task})

        assert tunnel.is_closing()


async def test_nothing_is_kept_of_a_node_that_has_no_tunnel() -> None:
    held = tunnels(wait_s=0.01)
    with pytest.raises(TimeoutError, match="'b' had no idle tunnel"):
        await held.dial("b", connection())
    async with tunnel_of(held, "a"):
        pass

    assert not held.has("a")
    assert held._nodes == {}


async def test_changes_are_told_at_the_first_and_after_the_last_tunnel() -> None:
    told: list[tuple[str, bool]] = []
    held = Tunnels(lambda node_id: told.append((node_id, held.has(node_id))))
    async with tunnel_of(held, "a"), tunnel_of(held, "a"):
        pass

    assert told == [("a", True), ("a", False)]


def test_a_node_and_all_of_them_have_a_most() -> None:
    held = tunnels(most=3, most_per_node=2)
    with contextlib.ExitStack() as places:
        places.enter_context(held.place("a"))
        places.enter_context(held.place("a"))
        with pytest.raises(NoPlaceError, match="'a' has 2 tunnels, its most"):
            places.enter_context(held.place("a"))
        places.enter_context(held.place("b"))
        with pytest.raises(NoPlaceError, match="the hub has 3 tunnels"):
            places.enter_context(held.place("c"))

    with held.place("c"):
        assert list(held._nodes) == ["c"]


def test_a_tunnels_upstream_says_so_and_hides_its_token() -> None:
    upstream = tunnel_upstream("a", "secret")

    assert upstream.link is not None
    assert (upstream.link.tunnel, upstream.link.token) == ("a", "secret")
    assert "secret" not in repr(upstream)
    assert upstream.is_guarded


async def test_a_hub_that_ends_closes_what_is_idle_and_takes_no_more() -> None:
    held = tunnels()
    async with tunnel_of(held, "a") as used, tunnel_of(held, "a") as idle:
        await held.dial("a", connection())
        held.end()

        assert sorted([used.is_closing(), idle.is_closing()]) == [False, True]
        with pytest.raises(NoPlaceError, match="the hub is ending"), held.place("b"):
            pass
