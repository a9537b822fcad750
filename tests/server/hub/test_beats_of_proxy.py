"""Beats to a whole proxy: both ways in judge them alike, and houses get the nodes."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.backends.hub import HubBackend
from ollama_proxy.core.nodes.labels import Labels, parse_labels
from tests.core.nodes.beats import old_beat, our_beat, sent
from tests.proxy import RunningProxy, running_proxy


def hub(folder: Path) -> contextlib.AbstractAsyncContextManager[RunningProxy]:
    """Return a running proxy whose only offer are nodes."""
    backends = {"house": HubBackend(Labels())}
    return running_proxy(folder, backends=backends, OLLAMA_PROXY_HUB="true")


async def post(
    proxy: RunningProxy, body: bytes, *fields: str, url: str = ""
) -> tuple[int, dict[str, Any]]:
    """Send a beat on a connection of its own; return the answer."""
    port = int((url or proxy.url).rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = "".join(f"{field}\r\n" for field in fields)
    writer.write(
        b"POST /nodes/heartbeat HTTP/1.1\r\nHost: hub\r\nContent-Length: %d\r\n%b\r\n%b"
        % (len(body), lines.encode(), body)
    )
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        answer = json.loads(await reader.readexactly(length) or b"{}")
    finally:
        writer.close()
        await writer.wait_closed()
    return int(head.split()[1]), answer


CLOSE = "Connection: close"
"""Leaves the request to the server behind the fast path."""


async def test_beats_are_taken_on_every_way_in(tmp_path: Path) -> None:
    async with hub(tmp_path) as proxy:
        fast = await post(proxy, sent(our_beat("fast")))
        behind = await post(proxy, sent(our_beat("behind")), CLOSE)
        long = await post(proxy, b" " * 300_000 + sent(old_beat("long")))
        at_hub = await post(proxy, sent(old_beat("hub")), url=proxy.hub_url)
        async with proxy.session.get(f"{proxy.url}/nodes") as listed:
            names = [node["node_id"] for node in await listed.json()]

    assert fast == behind
    assert {status for status, _ in (fast, behind, long, at_hub)} == {200}
    assert names == ["behind", "fast", "hub", "long"]


@pytest.mark.parametrize(
    ("body", "fields", "status"),
    [
        (b"{", (), 400),
        (sent(old_beat("a\nb")), (), 422),
        (sent(old_beat()), ("Authorization: Bearer opn_x_y",), 401),
        (sent(old_beat()), ("Origin: https://evil.test",), 403),
        *(
            (sent(old_beat()), (f"{name}: 10.0.0.1",), 403)
            for name in (
                "Forwarded",
                "X-Forwarded-For",
                "x-forwarded-proto",
                "X-Real-IP",
                "Via",
            )
        ),
    ],
)
async def test_a_beat_is_refused_alike_on_both_ways_in(
    tmp_path: Path, body: bytes, fields: tuple[str, ...], status: int
) -> None:
    async with hub(tmp_path) as proxy:
        fast = await post(proxy, body, *fields)
        behind = await post(proxy, body, *fields, CLOSE)
        at_hub = await post(proxy, body, *fields, url=proxy.hub_url)
        async with proxy.session.get(f"{proxy.url}/nodes") as listed:
            nodes = await listed.json()

    assert fast == behind == at_hub
    assert fast[0] == status
    assert nodes == []


async def test_a_former_agent_is_called_where_its_beat_came_from(
    tmp_path: Path,
) -> None:
    """And never at the addresses that it tells, nor at the hub itself."""
    async with hub(tmp_path) as proxy:
        told = old_beat(ipv4="8.8.8.8", ipv6="fd00:ec2::254", port=9)
        await post(proxy, sent(told))
        async with proxy.session.get(f"{proxy.url}/nodes/box") as shown:
            node = await shown.json()

    assert (node["ipv4"], node["ipv6"]) == ("8.8.8.8", "fd00:ec2::254")
    assert node["url"] == "http://127.0.0.1:9"


async def test_without_the_hub_there_is_no_such_route(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        body = sent(old_beat())
        writer.write(
            b"POST /nodes/heartbeat HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        is_any = proxy.parts.hub is not None

    assert head.startswith(b"HTTP/1.1 404")
    assert not is_any


async def test_two_pools_have_the_nodes_of_their_labels(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(
        """
        hub = true
        hub_listen = "127.0.0.1:0"
        [offers.fast]
        backend = "hub"
        labels = { gpu = "a*" }
        [offers.any]
        backend = "hub"
        [pools.large]
        models = ["*:70b"]
        offers = ["fast"]
        [pools.rest]
        offers = ["any"]
        """
    )
    backends = {
        "fast": HubBackend(parse_labels("gpu=a*")),
        "any": HubBackend(Labels()),
    }
    async with running_proxy(tmp_path / "s", backends=backends, file=file) as proxy:
        await post(proxy, sent(our_beat("one", labels={"gpu": "a100"})))
        await post(proxy, sent(old_beat("two")))
        pools = [services.pool for services in proxy.parts.pools]
        found = [[node.node_id for node in pool.instances] for pool in pools]

    assert found == [["one"], ["one", "two"]]


async def test_nodes_are_there_again_after_a_restart(tmp_path: Path) -> None:
    async with hub(tmp_path) as proxy:
        await post(proxy, sent(our_beat("box", 5)))
    async with hub(tmp_path) as proxy:
        async with proxy.session.get(f"{proxy.url}/nodes") as listed:
            (node,) = await listed.json()
        async with proxy.session.get(f"{proxy.url}/api/tags") as tags:
            models = [one["name"] for one in (await tags.json())["models"]]
        again = await post(proxy, sent(our_beat("box", 6)))

    assert (node["node_id"], node["status"]) == ("box", "online")
    assert node["models"] == ["qwen2.5:7b", "llama3:latest"]
    assert sorted(models) == ["llama3:latest", "qwen2.5:7b"]
    assert again[1]["accepted"] == 6
