"""Where this process listens: its ports, and the addresses of this machine."""

from ipaddress import ip_address
from unittest import mock

from ollama_proxy.hub.own_addresses import OwnAddressBook
from tests.virtual_time import SetClock


def test_an_address_of_this_machine_and_a_port_of_ours_is_ours() -> None:
    own = OwnAddressBook([("0.0.0.0", 11434), ("10.1.2.3", 8000)], SetClock()).now()

    assert own.has(ip_address("127.0.0.1"), 11434)
    assert own.has(ip_address("10.1.2.3"), 8000)
    assert not own.has(ip_address("127.0.0.1"), 8001)


def test_the_addresses_of_this_machine_are_read_now_and_then() -> None:
    clock = SetClock()
    book = OwnAddressBook([], clock)
    with mock.patch("psutil.net_if_addrs", return_value={}) as read:
        for _ in range(100):
            book.now()
            clock.moment += 0.2

    assert read.call_count == 2
