"""Which names are foreign to a proxy that other machines reach."""

import time

import pytest

from ollama_proxy.core.access.hosts import HostPolicy, PublicHosts, is_host_pattern


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost:11434",
        "nas",
        "nas.",
        "127.0.0.1:11434",
        "203.0.113.9",
        "[2001:db8::1]:11434",
        "[fe80::1%25eth0]",
        "[::ffff:203.0.113.9]",
        "nas.local:11434",
        "NAS.LAN",
        "nas.local.",
        "host.docker.internal:11434",
        "ollama.home.arpa",
        "ollama.default.svc",
        "ollama.default.svc.cluster.local",
        "box.tail1234.ts.net",
    ],
)
def test_a_name_that_no_stranger_can_have_is_not_foreign(host: str) -> None:
    assert PublicHosts().takes(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:11434",
        "local.evil.example",
        "127.0.0.1.evil.example",
        "nas.local.evil.example:80",
        "xlocal.example",
        "evillan.x",
        "127.0.0.1.nip.io",
        "evil.example:80:nas.local",
        "a." * 200 + "local",
        "256.0.0.1",
    ],
)
def test_any_other_name_is_foreign(host: str) -> None:
    assert not PublicHosts().takes(host)


@pytest.mark.parametrize(
    ("entry", "host", "is_taken"),
    [
        ("ollama.example.com", "ollama.example.com:443", True),
        ("ollama.example.com", "OLLAMA.Example.Com.", True),
        ("ollama.example.com", "x.ollama.example.com", False),
        ("ollama.example.com", "example.com", False),
        ("*.example.com", "ollama.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("*", "anything.example", True),
    ],
)
def test_names_can_be_allowed(entry: str, host: str, is_taken: bool) -> None:
    assert PublicHosts((entry,)).takes(host) is is_taken


@pytest.mark.parametrize(
    ("host", "is_taken"),
    [
        ("ollama.example.com", True),
        ("OLLAMA.example.com.:443", True),
        ("localhost:11434", True),
        ("evil.example", False),
        ("ollama.example.com.evil.example", False),
        ("a" * 300 + ".ollama.example.com", False),
    ],
)
def test_names_can_be_allowed_on_loopback_too(host: str, is_taken: bool) -> None:
    rules = HostPolicy("me", frozenset(), ("ollama.example.com",))
    assert rules.takes(host) is is_taken


@pytest.mark.parametrize("text", ["*", "nas", "a.example.com", "*.example.com", "a.b."])
def test_a_pattern_is_a_name_or_all_names_below_one(text: str) -> None:
    assert is_host_pattern(text)


@pytest.mark.parametrize(
    "text",
    ["", "*.", "a b", "http://a.example", "a.example:80", "a.*.example", "-a", "a..b"],
)
def test_what_is_no_name_is_no_pattern(text: str) -> None:
    assert not is_host_pattern(text)


def test_a_long_text_is_judged_at_once() -> None:
    begun_at = time.perf_counter()
    assert not is_host_pattern("a" * 250 + "!")
    assert not is_host_pattern("a." * 120 + "!")
    assert time.perf_counter() - begun_at < 1.0
