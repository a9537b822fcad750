"""Which pages may send requests: Ollama's own rules."""

import pytest

from ollama_proxy.core.access.cors import (
    CorsPolicy,
    host_name,
    is_local_name,
    is_own_address,
    is_same_origin,
)

ALLOWED = [
    "http://localhost",
    "https://localhost:3000",
    "http://127.0.0.1:8080",
    "https://0.0.0.0",
    "app://obsidian.md",
    "file://",
    "tauri://localhost",
    "vscode-webview://abc",
    "vscode-file://vscode-app",
]
REFUSED = [
    "https://evil.example",
    "null",
    "chrome-extension://abc",
    "http://localhost.evil.example",
    "localhost",
    "http://192.168.0.1",
]


@pytest.mark.parametrize("origin", ALLOWED)
def test_ollamas_own_list_is_allowed(origin: str) -> None:
    assert CorsPolicy().allows(origin)


@pytest.mark.parametrize("origin", REFUSED)
def test_everybody_else_is_refused(origin: str) -> None:
    assert not CorsPolicy().allows(origin)


@pytest.mark.parametrize(
    ("entry", "origin"),
    [
        ("https://ui.example", "https://ui.example"),
        ("https://*.example", "https://ui.example"),
        ("chrome-extension://*", "chrome-extension://abc"),
        ("chrome-extension://abc", "chrome-extension://abc"),
        ("*", "null"),
    ],
)
def test_what_the_user_adds_is_allowed(entry: str, origin: str) -> None:
    assert CorsPolicy([entry]).allows(origin)


@pytest.mark.parametrize("entry", ["ui.example", "null", "http://*.*", ""])
def test_what_ollama_would_not_start_with_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="write"):
        CorsPolicy([entry])


def test_an_allowed_origin_is_named_and_varied_on() -> None:
    assert CorsPolicy().headers("app://x") == (
        ("Access-Control-Allow-Origin", "app://x"),
        ("Vary", "Origin"),
    )


def test_with_everyone_allowed_nobody_is_named() -> None:
    assert CorsPolicy(["*"]).headers("https://a.example") == (
        ("Access-Control-Allow-Origin", "*"),
    )


def test_a_page_of_the_very_host_is_no_other_origin() -> None:
    assert is_same_origin("http://gpu.lan:11434", "gpu.lan:11434")
    assert not is_same_origin("http://gpu.lan", "gpu.lan:11434")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost:11434", "localhost"),
        ("localhost", "localhost"),
        ("[::1]:11434", "::1"),
        ("::1", "::1"),
        ("", ""),
    ],
)
def test_the_host_is_read_without_its_port(host: str, name: str) -> None:
    assert host_name(host) == name


def test_own_and_private_addresses_are_taken() -> None:
    for name in ("127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "0.0.0.0", "fd00::1"):
        assert is_own_address(name, ())
    assert is_own_address("203.0.113.7", {"203.0.113.7"})
    for name in ("8.8.8.8", "169.254.169.254", "fe80::1", "localhost", "", "127.1"):
        assert not is_own_address(name, ())


def test_an_ipv4_address_is_the_same_as_ipv6_writes_it() -> None:
    for name in ("::ffff:127.0.0.1", "::ffff:10.1.2.3", "::ffff:203.0.113.7", "::"):
        assert is_own_address(name, {"203.0.113.7"})
    for name in ("::ffff:8.8.8.8", "::ffff:169.254.169.254"):
        assert not is_own_address(name, ())


def test_addresses_that_are_only_reserved_are_not_private() -> None:
    """Python's ``is_private`` has them; Go's, and so Ollama's, has not."""
    for name in ("192.0.2.1", "198.18.0.1", "203.0.113.7", "240.0.0.1", "2001:db8::1"):
        assert not is_own_address(name, ())


def test_local_names_are_taken() -> None:
    for name in ("localhost", "A.localhost", "nas.local", "gpu.internal", "me", ""):
        assert is_local_name(name, "Me")
    for name in ("evil.example", "localhost.evil.example", "internal"):
        assert not is_local_name(name, "me")
