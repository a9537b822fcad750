"""The client's address behind gateways: what it writes itself counts for nothing."""

import time

import pytest

from ollama_proxy.core.access.client_address import (
    MOST_BYTES,
    MOST_GATEWAYS,
    TrustedProxies,
    parse_address,
)

OURS = TrustedProxies(["10.0.0.0/8", "192.0.2.1/32", "fd00::/8", "::1/128"])


@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.7", "10.0.0.2,10.0.0.3"], "203.0.113.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("203.0.113.9", ["1.1.1.1"], "203.0.113.9"),
        ("203.0.113.9", ["10.0.0.1"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("::ffff:203.0.113.9", ["1.1.1.1"], "203.0.113.9"),
        ("::1", ["2001:DB8::0:7"], "2001:db8::7"),
        ("fd00::1%eth0", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", ["203.0.113.7:80"], "203.0.113.7"),
        ("10.0.0.1", ["::ffff:203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["fe80::1%eth0"], "fe80::1"),
        ("10.0.0.1", ["203.0.113.7,"], "203.0.113.7"),
        ("10.0.0.1", [",, 203.0.113.7\t,,"], "203.0.113.7"),
        ("10.0.0.1", ["", "203.0.113.7", ""], "203.0.113.7"),
        ("", ["203.0.113.7"], ""),
        ("a socket", ["203.0.113.7"], "a socket"),
    ],
)
def test_it_is_the_rightmost_that_is_no_trusted_gateway(
    peer: str, lines: list[str], client: str
) -> None:
    assert OURS.client(peer, lines, []) == client


@pytest.mark.parametrize(
    "text",
    [
        "unknown",
        "_hidden",
        "203.0.113",
        "203.0.113.07",
        "203.0.113.7:",
        "203.0.113.7:x",
        "203.0.113.7:123456",
        "203.0.113.7/32",
        "[203.0.113.7]",
        "[::1",
        "::1]",
        "[::1]x",
        "[::1]:",
        "0x7f.1",
        "1",
        "٣.٣.٣.٣",
        "203.0.113.7 10.0.0.1",
        "203.0.113.7\n",
        '"203.0.113.7"',
        "::1%" + "z" * 100,
        "localhost",
        "%eth0",
        "\x00",
    ],
)
def test_what_is_no_address_ends_the_search_at_the_gateway(text: str) -> None:
    assert parse_address(text) is None
    assert OURS.client("10.0.0.1", [f"1.1.1.1, {text}, 10.0.0.2"], []) == "10.0.0.2"
    assert OURS.client("10.0.0.1", [text], []) == "10.0.0.1"


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["for=203.0.113.7"], "203.0.113.7"),
        (["For=1.1.1.1, FOR=203.0.113.7;proto=http;by=10.0.0.1"], "203.0.113.7"),
        (["for=1.1.1.1", 'by=10.0.0.1;for="[2001:db8::7]:4711"'], "2001:db8::7"),
        (["for=203.0.113.7;host=a;proto=https, for=10.0.0.2"], "203.0.113.7"),
        (['for=203.0.113.7; host="a b"'], "203.0.113.7"),
        (["for=unknown"], "10.0.0.1"),
        (["for=_secret, for=10.0.0.2"], "10.0.0.2"),
        (["proto=https"], "10.0.0.1"),
        (["203.0.113.7"], "10.0.0.1"),
        (["for="], "10.0.0.1"),
        (['for="203.0.113.7'], "10.0.0.1"),
        (["for=203.0.113.7;for=1.1.1.1"], "10.0.0.1"),
        (['for=203.0.113.7;host="x,for=9.9.9.9"'], "10.0.0.1"),
        (['for=203.0.113.7;host="x,for=9.9.9.9;c=\\""'], "10.0.0.1"),
        (['for=203.0.113.7;host="x;for=9.9.9.9"'], "10.0.0.1"),
    ],
)
def test_forwarded_is_read_without_x_forwarded_for(
    lines: list[str], client: str
) -> None:
    assert OURS.client("10.0.0.1", [], lines) == client


def test_forwarded_of_the_clients_own_counts_for_nothing_beside_the_gateways() -> None:
    assert OURS.client("10.0.0.1", ["203.0.113.7"], ["for=1.1.1.1"]) == "203.0.113.7"


def test_a_long_chain_of_gateways_ends() -> None:
    chain = ["203.0.113.7", *["10.0.0.2"] * (MOST_GATEWAYS - 1)]
    assert OURS.client("10.0.0.1", [",".join(chain)], []) == "203.0.113.7"
    assert OURS.client("10.0.0.1", [",".join([*chain, "10.0.0.2"])], []) == "10.0.0.2"
    assert OURS.client("10.0.0.1", [*chain, "10.0.0.2"], []) == "10.0.0.2"


def test_what_lies_beyond_the_bound_is_not_cut_in_two() -> None:
    blanks = " " * (MOST_BYTES - 2 - len("10.0.0.2,"))
    assert OURS.client("10.0.0.1", [f"203.0.113.77,{blanks}10.0.0.2"], []) != "7"
    assert OURS.client("10.0.0.1", ["203.0.113.7" + blanks + "," * 30], []) in {
        "10.0.0.1",
        "203.0.113.7",
    }
    assert OURS.client("10.0.0.1", [" " * 99_999 + "203.0.113.7"], []) == "10.0.0.1"


@pytest.mark.parametrize(
    "value",
    [
        "1.1.1.1," * 130_000,
        "," * 1_000_000,
        "10.0.0.2," * 110_000,
        " " * 1_000_000,
        "[" * 1_000_000,
        'for="' * 200_000,
        "a=b;" * 250_000,
    ],
    ids=["addresses", "commas", "gateways", "blanks", "brackets", "quotes", "fields"],
)
def test_a_megabyte_costs_no_more_than_a_line(value: str) -> None:
    begun = time.perf_counter()
    for _ in range(20):
        OURS.client("10.0.0.1", [value], [])
        OURS.client("10.0.0.1", [], [value])
        OURS.client("10.0.0.1", [value[:100]] * 10_000, [])
    assert time.perf_counter() - begun < 2.0


def test_without_trusted_gateways_it_is_the_peer() -> None:
    assert TrustedProxies().client("10.0.0.1", ["1.1.1.1"], []) == "10.0.0.1"
    assert not TrustedProxies()
