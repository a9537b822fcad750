"""How each node is reached."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ollama_proxy.core.nodes.addresses import OwnAddresses
from ollama_proxy.core.nodes.beat import Beat, parse_beat
from ollama_proxy.core.nodes.node_keys import NodeKey
from ollama_proxy.core.nodes.tls_names import node_name
from ollama_proxy.hub.ports import NodeLink, Sender
from ollama_proxy.hub.reach import Reach
from ollama_proxy.upstream.endpoint import Link
from tests.hub.rig import OWNER, PEER, JoinRig, key_id

KEYED = Sender(PEER, "box")
FORMER = Sender(PEER)
OWN = OwnAddresses((("0.0.0.0", 8000),))


@dataclass
class FakeProver:
    """Proves what it is told to, when it is let."""

    right: str = f"https://{PEER}:8001"
    may: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def __call__(self, urls: Sequence[str], key: NodeKey, link: Link) -> str:
        del key
        self.asked.append(tuple(urls))
        self.tokens.append(link.token)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.may.wait()
        finally:
            self.at_once -= 1
        return self.right if self.right in urls else ""


@dataclass
class Rig:
    hub: JoinRig
    prover: FakeProver
    reach: Reach
    relinked: list[str] = field(default_factory=list)

    async def settled(self, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while len(self.relinked) < times:
                await asyncio.sleep(0.001)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    hub, prover = JoinRig(tmp_path), FakeProver()
    hub.joining.join(hub.request(hub.token()), PEER)
    reach = Reach(
        hub.authority, hub.keyring, prover, lambda: OWN, again_s=0.05, apart_s=0.0
    )
    rig = Rig(hub, prover, reach)
    reach.relink = rig.relinked.append
    prover.may.set()
    yield rig
    await reach.aclose()


def beat(node_id: str = "box", **changed: Any) -> Beat:
    agent = {"boot_id": "0" * 32, "seq": 1, "scheme": "https"}
    agent |= {name: changed.pop(name) for name in list(changed) if name in agent}
    body = {"node_id": node_id, "port": 8001, "models": [], "agent": agent, **changed}
    return parse_beat(msgspec.json.encode(body))


def former(**changed: Any) -> Beat:
    return parse_beat(msgspec.json.encode({"node_id": "old", "port": 8001, **changed}))


def url(link: NodeLink) -> str:
    return link.upstream.url if link.upstream is not None else ""


async def test_a_node_is_reached_once_it_has_proved_to_be_it(rig: Rig) -> None:
    rig.prover.may.clear()
    assert rig.reach.link_of(beat(), KEYED) == NodeLink()
    assert rig.reach.link_of(beat(), KEYED) == NodeLink()
    rig.prover.may.set()
    await rig.settled()
    link = rig.reach.link_of(beat(seq=2), KEYED)
    assert url(link) == f"https://{PEER}:8001"
    assert link.serves_all
    assert link.upstream is not None
    assert link.upstream.link is not None
    assert link.upstream.link.token == rig.hub.authority.hub_token(key_id())
    assert link.upstream.link.server_name == node_name(key_id())
    assert rig.relinked == ["box"]
    assert rig.prover.asked == [(f"https://{PEER}:8001",)]
    assert rig.prover.tokens == [""]  # what is not yet known gets no token


async def test_a_node_that_names_another_place_in_each_beat_has_few_of_them_asked(
    rig: Rig,
) -> None:
    reach = Reach(
        rig.hub.authority, rig.hub.keyring, rig.prover, lambda: OWN, apart_s=0.2
    )
    reach.relink = rig.relinked.append
    for port in range(9000, 9100):
        reach.link_of(beat(port=port), KEYED)
        reach.link_of(beat(), Sender("169.254.1.1", "box"))  # nothing to ask
        await asyncio.sleep(0)
    rig.prover.right = f"https://{PEER}:9100"

    reach.link_of(beat(port=9100), KEYED)  # it is heard in the end

    await rig.settled()
    assert url(reach.link_of(beat(port=9100), KEYED)) == rig.prover.right
    assert len(rig.prover.asked) <= 5
    await reach.aclose()


async def test_only_addresses_that_may_be_called_are_asked(rig: Rig) -> None:
    named = {"ipv4": "169.254.169.254", "ipv6": "fd00:ec2::254"}
    rig.reach.link_of(beat(**named), KEYED)
    await rig.settled()
    assert rig.prover.asked == [(f"https://{PEER}:8001",)]


async def test_a_node_with_no_such_address_is_told_why_and_nobody_is_asked(
    rig: Rig,
) -> None:
    sender = Sender("169.254.169.254", "box")
    link = rig.reach.link_of(beat(), sender)
    assert link.upstream is None
    assert "link-local" in link.fault
    own = Sender("192.168.1.2", "box")
    rig.reach._own = lambda: OwnAddresses((("192.168.1.2", 8000),))
    assert "the hub itself" in rig.reach.link_of(beat(port=8000), own).fault
    assert rig.prover.asked == []


async def test_another_address_is_called_only_after_another_proof(rig: Rig) -> None:
    rig.reach.link_of(beat(), KEYED)
    await rig.settled()
    rig.prover.right = "https://10.0.0.9:8001"
    moved = Sender("10.0.0.9", "box")
    assert rig.reach.link_of(beat(seq=2), moved).upstream is None
    await rig.settled(2)
    assert url(rig.reach.link_of(beat(seq=3), moved)) == "https://10.0.0.9:8001"


@pytest.mark.parametrize(
    "changed", [{"port": 8002}, {"boot_id": "1" * 32}, {"scheme": "http"}]
)
async def test_whatever_changes_asks_for_another_proof(
    changed: dict[str, Any], rig: Rig
) -> None:
    rig.reach.link_of(beat(), KEYED)
    await rig.settled()
    rig.reach.link_of(beat(**changed), KEYED)
    await rig.settled(2)
    assert len(rig.prover.asked) == 2


async def test_a_node_without_proof_is_asked_again_and_not_too_often(rig: Rig) -> None:
    rig.prover.right = ""
    rig.reach.link_of(beat(), KEYED)
    await rig.settled()
    for _ in range(50):
        link = rig.reach.link_of(beat(), KEYED)
    assert "--tunnel" in link.fault
    assert len(rig.prover.asked) == 1
    await asyncio.sleep(0.06)
    rig.prover.right = f"https://{PEER}:8001"
    assert "--tunnel" in rig.reach.link_of(beat(), KEYED).fault
    await rig.settled(2)
    assert url(rig.reach.link_of(beat(), KEYED))


async def test_many_nodes_are_asked_some_at_a_time(tmp_path: Path) -> None:
    hub, prover = JoinRig(tmp_path), FakeProver(right="")
    reach = Reach(hub.authority, hub.keyring, prover, lambda: OWN, most_at_once=8)
    relinked: list[str] = []
    reach.relink = relinked.append
    for number in range(100):
        name = f"box-{number}"
        key = NodeKey(key_id(number + 1), name, bytes(32))
        hub.keyring._hold(key)
        reach.link_of(beat(name), Sender(PEER, name))
    async with asyncio.timeout(10):
        while prover.at_once < 8:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        prover.may.set()
        while len(relinked) < 100:
            await asyncio.sleep(0.001)
    assert prover.most_at_once == 8
    await reach.aclose()


async def test_a_forgotten_node_is_asked_no_more(rig: Rig) -> None:
    rig.prover.may.clear()
    rig.reach.link_of(beat(), KEYED)
    await asyncio.sleep(0)
    rig.reach.forget("box")
    rig.reach.forget("box")
    for _ in range(5):
        await asyncio.sleep(0)
    assert rig.prover.at_once == 0
    assert rig.relinked == []


async def test_a_node_whose_key_was_removed_is_reached_no_more(rig: Rig) -> None:
    rig.reach.link_of(beat(), KEYED)
    await rig.settled()
    key = rig.hub.keyring.of_node("box")
    assert key is not None
    rig.hub.keyring.remove(key, rig.hub.tokens.line_of_joining(OWNER, "box"))
    link = rig.reach.link_of(beat(), KEYED)
    assert link.upstream is None
    assert "join again" in link.fault


async def test_the_first_use_of_a_key_asks_for_no_other_proof(rig: Rig) -> None:
    rig.reach.link_of(beat(), KEYED)
    await rig.settled()
    key = rig.hub.keyring.of_node("box")
    assert key is not None
    rig.hub.keyring.note_use(key)
    assert url(rig.reach.link_of(beat(), KEYED))
    assert len(rig.prover.asked) == 1


async def test_the_hubs_token_is_known_of_nodes_with_a_key_alone(rig: Rig) -> None:
    assert rig.reach.token_of("box") == rig.hub.authority.hub_token(key_id())
    assert rig.reach.token_of("old") is None


async def test_a_former_agent_is_called_where_its_beat_comes_from_alone(
    rig: Rig,
) -> None:
    link = rig.reach.link_of(former(ipv4="10.9.9.9", ipv6="fd00::9"), FORMER)
    assert url(link) == f"http://{PEER}:8001"
    assert not link.serves_all
    assert link.upstream is not None
    assert link.upstream.link is None
    v6 = rig.reach.link_of(former(), Sender("fd00::7"))
    assert url(v6) == "http://[fd00::7]:8001"
    mapped = rig.reach.link_of(former(), Sender(f"::ffff:{PEER}"))
    assert url(mapped) == f"http://{PEER}:8001"
    assert rig.prover.asked == []


@pytest.mark.parametrize("peer", ["169.254.1.1", "fe80::1%eth0", "224.0.0.1", "", "x"])
async def test_a_former_agent_at_an_address_that_is_none_is_not_called(
    peer: str, rig: Rig
) -> None:
    link = rig.reach.link_of(former(), Sender(peer))
    assert link.upstream is None
    assert link.fault


async def test_a_former_agent_on_the_hubs_own_port_is_not_called(rig: Rig) -> None:
    link = rig.reach.link_of(former(port=8000), Sender("127.0.0.1"))
    assert "the hub itself" in link.fault


async def test_a_former_agent_from_before_the_first_key_is_used_no_more(
    rig: Rig,
) -> None:
    rig.reach._takes_former = lambda: False
    link = rig.reach.link_of(former(), FORMER)
    assert link.upstream is None
    assert "node-token" in link.fault


async def test_only_former_agents_are_looked_at_again(rig: Rig) -> None:
    rig.reach.link_of(beat(), KEYED)
    await rig.settled()
    rig.reach.link_of(former(), FORMER)
    rig.relinked.clear()
    rig.reach.end_former()
    assert rig.relinked == ["old"]
    rig.reach.forget("old")
    rig.reach.end_former()
    assert rig.relinked == ["old"]


async def test_beats_over_two_families_in_turn_ask_for_one_proof(rig: Rig) -> None:
    both = {"ipv4": PEER, "ipv6": "fd00::7"}
    over_v6 = Sender("fd00::7", "box")
    rig.prover.may.clear()
    for sender in (KEYED, over_v6, KEYED):
        rig.reach.link_of(beat(**both), sender)
    rig.prover.may.set()
    await rig.settled()
    for sender in (over_v6, KEYED, Sender("fd00::abcd", "box")):
        assert url(rig.reach.link_of(beat(**both), sender)) == f"https://{PEER}:8001"
    assert len(rig.prover.asked) == 1


async def test_a_proved_address_that_the_node_no_longer_has_is_called_no_more(
    rig: Rig,
) -> None:
    rig.reach.link_of(beat(ipv4=PEER), KEYED)
    await rig.settled()
    moved = Sender("10.0.0.9", "box")
    assert rig.reach.link_of(beat(ipv4="10.0.0.9"), moved).upstream is None
