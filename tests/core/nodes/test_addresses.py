"""Which addresses of a node the hub may call."""

import ipaddress
import random

import pytest

from ollama_proxy.core.nodes.addresses import (
    Claim,
    OwnAddresses,
    address_fault,
    allowed_addresses,
    parse_literal,
)

HERE = frozenset(map(ipaddress.ip_address, ["192.168.1.2", "fd00::2"]))
OWN = OwnAddresses(
    (
        ("0.0.0.0", 8000),
        ("192.168.1.2", 11434),
    ),
    HERE,
)
PEER = "192.168.1.7"
NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "febf::1",
    "224.0.0.1",
    "239.255.255.255",
    "ff02::1",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "255.255.255.255",
    "240.0.0.1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
]
DISGUISED = [
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "0:0:0:0:0:ffff:169.254.169.254",
    "::169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "::ffff:0.0.0.0",
]
NO_ADDRESS = [
    "localhost",
    "metadata.google.internal",
    "169.254.169.254.nip.io",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "0x7f.0.0.1",
    "010.0.0.1",
    "10.0.0.1:80",
    "[::1]",
    "fe80::1%eth0",
    "10.0.0.1/32",
    " 10.0.0.1",
    "10.0.0.1\n",
    "10.0.0.1 ",
    "１０.0.0.1",
    "10.0.0.1@8.8.8.8",
    "http://10.0.0.1",
    "user@10.0.0.1",
    "",
    "1" * 100_000,
]


def claim(*named: str, peer: str = PEER, port: int = 8001) -> Claim:
    return Claim(peer, port, named)


@pytest.mark.parametrize("text", NEVER + DISGUISED)
def test_an_address_that_is_no_single_other_machine_is_never_called(text: str) -> None:
    for peer in (PEER, "127.0.0.1"):
        assert address_fault(text, claim(peer=peer), OWN)
        assert text not in allowed_addresses(claim(text, peer=peer), OWN).addresses


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_only_an_address_in_its_plain_spelling_is_one(text: str) -> None:
    told = allowed_addresses(claim(text), OWN)
    assert told.addresses == [PEER]
    assert "is no IP address" in told.faults[0]
    assert len(told.faults[0]) < 200


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_called_only_for_a_beat_from_it(text: str) -> None:
    assert "another machine's" in address_fault(text, claim(), OWN)
    assert address_fault(text, claim(peer="127.0.0.1"), OWN) == ""
    assert address_fault(text, claim(peer="::1"), OWN) == ""


@pytest.mark.parametrize(
    ("text", "port", "is_own"),
    [
        ("192.168.1.2", 8000, True),  # on every address
        ("127.0.0.1", 8000, True),
        ("::1", 8000, True),
        ("fd00::2", 8000, True),
        ("192.168.1.2", 11434, True),
        ("127.0.0.1", 11434, False),  # not bound there
        ("192.168.1.7", 8000, False),  # another machine may have that port
        ("192.168.1.2", 8001, False),  # an agent on the hub's machine
    ],
)
def test_the_hub_never_calls_itself(text: str, port: int, *, is_own: bool) -> None:
    fault = address_fault(text, claim(peer="127.0.0.1", port=port), OWN)
    assert ("the hub itself" in fault) is is_own


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "hub.lan", "localhost"])
def test_what_listens_on_every_address_or_a_name_is_found_on_ours(host: str) -> None:
    own = OwnAddresses(((host, 8000),), HERE)
    assert own.has(ipaddress.ip_address("127.0.0.1"), 8000)


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_that_is_none_is_told(port: int) -> None:
    assert "is no port" in address_fault(PEER, claim(port=port), OWN)


def test_a_former_agent_is_called_where_its_beat_came_from_alone() -> None:
    former = Claim(PEER, 8001, ("10.9.9.9", "8.8.8.8"), is_former=True)
    assert allowed_addresses(former, OWN).addresses == [PEER]


def test_the_peer_comes_first_and_each_address_once() -> None:
    told = allowed_addresses(claim("10.0.0.3", PEER, "fd00::9"), OWN)
    assert told.addresses == [PEER, "10.0.0.3", "fd00::9"]
    mapped = allowed_addresses(claim(PEER, peer=f"::ffff:{PEER}"), OWN)
    assert mapped.addresses == [PEER]


def test_few_addresses_of_a_claim_are_looked_at() -> None:
    many = [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(10_000)]
    assert len(allowed_addresses(claim(*many), OWN).addresses) == 3


def test_a_link_local_peer_is_not_called_whatever_its_zone() -> None:
    told = allowed_addresses(claim(peer="fe80::1%eth0"), OWN)
    assert told.addresses == []
    assert "link-local" in told.faults[0]


@pytest.mark.no_cover  # 20 000 spellings
def test_no_spelling_of_an_address_passes_that_another_does_not() -> None:
    rng = random.Random(18)
    for _ in range(20_000):
        packed = rng.choice([rng.getrandbits(32), rng.getrandbits(128)])
        if rng.random() < 0.5:
            packed = 0xFFFF_0000_0000 | rng.getrandbits(32)
        address = ipaddress.ip_address(packed)
        spellings = [str(address), address.exploded, str(address).upper()]
        assert len({address_fault(text, claim(), OWN) for text in spellings}) == 1


def test_letters_by_chance_are_an_address_or_refused() -> None:
    rng = random.Random(18)
    for _ in range(20_000):
        text = "".join(rng.choices("0123456789abcdefx.:%[]/@ \n", k=rng.randint(0, 20)))
        parse_literal(text)
        for address in allowed_addresses(claim(text), OWN).addresses:
            assert ipaddress.ip_address(address)
