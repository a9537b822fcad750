"""A node with an open tunnel is reached through it, whatever its beat says."""

from ollama_proxy.core.nodes.beat import parse_beat
from ollama_proxy.hub.ports import Sender
from ollama_proxy.hub.tunnelled_links import TunnelledLinks
from ollama_proxy.hub.tunnels import Tunnels
from tests.core.nodes.beats import our_beat, sent
from tests.hub.nodes import Links
from tests.hub.test_tunnels import tunnel_of

BEAT = parse_beat(sent(our_beat("box", 1)))
JOINED = Sender("192.168.1.20", "box")


def links(tunnels: Tunnels) -> TunnelledLinks:
    return TunnelledLinks(tunnels, Links(), {"box": "hub-token"}.get)


async def test_a_tunnel_comes_before_the_address_of_a_beat() -> None:
    tunnels = Tunnels(lambda _: None)
    async with tunnel_of(tunnels, "box"):
        link = links(tunnels).link_of(BEAT, JOINED)

    assert link.serves_all
    assert link.upstream is not None
    assert link.upstream.link is not None
    assert (link.upstream.link.tunnel, link.upstream.link.token) == ("box", "hub-token")


async def test_without_a_tunnel_a_node_is_reached_as_others_are() -> None:
    tunnels = Tunnels(lambda _: None)
    async with tunnel_of(tunnels, "another"):
        link = links(tunnels).link_of(BEAT, JOINED)

    assert link.upstream is not None
    assert link.upstream.link is None


async def test_a_beat_without_a_key_never_gets_the_tunnel_of_its_name() -> None:
    tunnels = Tunnels(lambda _: None)
    async with tunnel_of(tunnels, "box"):
        link = links(tunnels).link_of(BEAT, Sender("192.168.1.66"))

    assert link.upstream is not None
    assert link.upstream.link is None


async def test_a_node_whose_key_has_ended_is_not_reached_through_its_tunnel() -> None:
    tunnels = Tunnels(lambda _: None)
    async with tunnel_of(tunnels, "box"):
        link = TunnelledLinks(tunnels, Links(), lambda _: None).link_of(BEAT, JOINED)

    assert link.upstream is not None
    assert link.upstream.link is None


def test_a_node_is_forgotten_by_what_finds_the_others() -> None:
    others = Links()
    TunnelledLinks(Tunnels(lambda _: None), others, lambda _: None).forget("box")

    assert others.forgotten == ["box"]
