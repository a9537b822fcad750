"""Who is the hub: whatever its name resolves to, looked up again and again."""

import socket

import pytest

from ollama_proxy.node.hub_addresses import HubAddresses


def hub(*answers: list[str] | Exception) -> HubAddresses:
    """Return a hub whose name resolves to one answer after the other."""
    left = list(answers)

    async def resolve(_host: str, _port: int) -> list[str]:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return HubAddresses("hub.example", 8000, resolve)


@pytest.mark.parametrize(
    ("resolved", "peer", "is_admitted"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "::1", True),
        ("127.0.0.1", "192.0.2.1", False),
        ("2001:db8::1", "2001:db8:0::1", True),
        ("fe80::1%2", "fe80::1%3", True),
        ("192.0.2.1", "", False),
        ("192.0.2.1", "nonsense", False),
    ],
)
async def test_a_peer_is_the_hub_by_its_address(
    resolved: str, peer: str, is_admitted: bool
) -> None:
    addresses = hub([resolved])
    await addresses.refresh()

    assert addresses.admits(peer) is is_admitted


async def test_nobody_is_the_hub_before_its_name_resolves() -> None:
    addresses = hub(OSError())
    await addresses.refresh()

    assert not addresses.admits("127.0.0.1")
    assert str(addresses) == "a name without an address so far: nobody"


async def test_the_addresses_before_hold_while_the_name_does_not_resolve() -> None:
    addresses = hub(["192.0.2.1"], TimeoutError(), ["192.0.2.2"])
    await addresses.refresh()
    await addresses.refresh()
    assert addresses.admits("192.0.2.1")
    await addresses.refresh()

    assert not addresses.admits("192.0.2.1")
    assert addresses.admits("192.0.2.2")


async def test_a_hub_has_an_address_of_the_families_of_its_name() -> None:
    addresses = hub(["192.0.2.1"])
    await addresses.refresh()

    assert addresses.of_family(socket.AF_INET) == "192.0.2.1"
    assert addresses.of_family(socket.AF_INET6) is None
