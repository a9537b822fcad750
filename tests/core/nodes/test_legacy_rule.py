"""From whom a beat without a key is taken."""

import ipaddress
import itertools

import pytest

from ollama_proxy.core.nodes.legacy_rule import LegacyMode, LegacyRule

AUTO = LegacyRule(LegacyMode.AUTO)
GATEWAY = ipaddress.ip_address("172.17.0.1")
PRIVATE = [
    "10.0.0.9",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.1.7",
    "100.64.0.1",
    "100.127.255.254",
    "fd12::7",
    "fc00::1",
    "::ffff:192.168.1.7",  # as a socket of both families shows IPv4
]
PUBLIC = [
    "8.8.8.8",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "192.167.255.255",
    "2001:4860:4860::8888",
    "::ffff:8.8.8.8",
    "169.254.1.1",
    "fe80::1",
    "fe80::1%eth0",
    "192.0.2.1",  # for documentation: Python calls it private
    "198.18.0.1",
    "0.0.0.0",
    "::",
    "ff02::1",
    "",
    "unix",
]
RELAYED = ["Forwarded", "Via", "X-Real-IP", "x-forwarded-for", "X-Forwarded-Anything"]


def refusal(rule: LegacyRule, peer: str, *names: str, made: bool = False) -> str:
    return rule.refusal(peer, names, was_key_made=made)


@pytest.mark.parametrize("peer", PRIVATE)
def test_a_peer_on_a_private_network_is_taken(peer: str) -> None:
    assert refusal(AUTO, peer, "Host", "Content-Type", "User-Agent") == ""


@pytest.mark.parametrize("peer", PUBLIC)
@pytest.mark.parametrize("mode", [LegacyMode.AUTO, LegacyMode.ON])
def test_another_peer_is_refused_in_any_mode(mode: LegacyMode, peer: str) -> None:
    rule = LegacyRule(mode, is_loopback_bind=True)
    assert "a beat without a key is not taken from" in refusal(rule, peer)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_taken_only_where_no_other_can_connect(peer: str) -> None:
    assert "listens on loopback" in refusal(AUTO, peer)
    assert refusal(LegacyRule(LegacyMode.AUTO, is_loopback_bind=True), peer) == ""


@pytest.mark.parametrize("name", RELAYED)
def test_a_beat_that_another_server_relays_is_refused(name: str) -> None:
    assert "relays this beat" in refusal(AUTO, "10.0.0.9", "Host", name)
    local = LegacyRule(LegacyMode.ON, is_loopback_bind=True)
    assert "relays this beat" in refusal(local, "127.0.0.1", name)


@pytest.mark.parametrize("peer", ["172.17.0.1", "::ffff:172.17.0.1"])
def test_the_gateway_of_our_container_stands_for_anybody(peer: str) -> None:
    for mode in (LegacyMode.AUTO, LegacyMode.ON):
        rule = LegacyRule(mode, gateways=[GATEWAY])
        assert "--network host" in refusal(rule, peer)
        assert refusal(rule, "172.17.0.2") == ""


def test_the_first_key_ends_it_unless_it_is_switched_on() -> None:
    assert "since its first key was made" in refusal(AUTO, "10.0.0.9", made=True)
    assert refusal(LegacyRule(LegacyMode.ON), "10.0.0.9", made=True) == ""


def test_off_takes_nobody() -> None:
    off = LegacyRule(LegacyMode.OFF, is_loopback_bind=True)
    for peer, made in itertools.product([*PRIVATE, "127.0.0.1"], [False, True]):
        assert "OLLAMA_PROXY_HUB_LEGACY=off" in refusal(off, peer, made=made)


@pytest.mark.parametrize(
    ("mode", "made", "open_"),
    [
        (LegacyMode.AUTO, False, True),
        (LegacyMode.AUTO, True, False),
        (LegacyMode.ON, True, True),
        (LegacyMode.OFF, False, False),
    ],
)
def test_it_is_told_whether_any_is_taken(
    mode: LegacyMode, *, made: bool, open_: bool
) -> None:
    assert LegacyRule(mode).is_open(was_key_made=made) is open_


def test_each_refusal_says_what_to_do() -> None:
    rule = LegacyRule(LegacyMode.AUTO, gateways=[GATEWAY])
    peers = ["8.8.8.8", "127.0.0.1", "172.17.0.1", "nonsense"]
    told = [refusal(rule, peer) for peer in peers]
    told.append(refusal(rule, "10.0.0.9", "Via"))
    told.append(refusal(rule, "10.0.0.9", made=True))
    assert all("ollama-proxy node-token" in sentence for sentence in told)


def test_while_any_is_taken_people_are_warned_of_what_it_means() -> None:
    told = AUTO.warning(was_key_made=False)
    assert told.startswith("anybody on this network can register a machine and read")
    assert "node-token" in told
    assert AUTO.warning(was_key_made=True) == ""
    assert LegacyRule(LegacyMode.OFF).warning(was_key_made=False) == ""
    local = LegacyRule(LegacyMode.ON, is_loopback_bind=True)
    assert "every program on this machine" in local.warning(was_key_made=True)
