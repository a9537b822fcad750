"""Who asks, through both servers: the client behind gateways that are trusted."""

from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from ollama_proxy.base import log
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.config.loader import load_settings
from ollama_proxy.core.access.cors import CorsPolicy
from ollama_proxy.core.access.facts import AccessFacts
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.server.access import AccessControl
from ollama_proxy.serving.caller_fields import AGENT_LETTERS
from tests.proxy import RunningProxy, running_proxy

ORIGIN = b"Origin: http://localhost\r\n"
"""Has aiohttp's server serve what the fast path would."""


class Recorder:
    """An access rule that keeps the addresses it sees."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, facts: AccessFacts) -> Reply | None:
        self.seen.append(facts.peer)
        return Reply(418) if facts.path == "/api/ps" else None


@pytest.fixture
def lines_of_log(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The keys of each request's line."""
    written: list[dict[str, Any]] = []
    monkeypatch.setattr(log.REQUESTS, "write", lambda _, keys: written.append(keys))
    return written


async def ask(proxy: RunningProxy, *lines: bytes, path: bytes = b"/api/version") -> str:
    head = b"".join(line + b"\r\n" for line in lines)
    answer = await proxy.raw(
        b"GET %b HTTP/1.1\r\nHost: localhost\r\n%bConnection: close\r\n\r\n"
        % (path, head)
    )
    return answer.partition(b"\r\n")[0].decode()


@pytest.mark.parametrize("more", [b"", ORIGIN], ids=["fast", "aiohttp"])
@pytest.mark.parametrize(
    ("trusted", "lines", "client"),
    [
        ("", [b"X-Forwarded-For: 203.0.113.7"], "127.0.0.1"),
        ("10.0.0.0/8", [b"X-Forwarded-For: 203.0.113.7"], "127.0.0.1"),
        ("127.0.0.1", [b"X-Forwarded-For: 203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", [b"x-forwarded-FOR: 1.1.1.1, 203.0.113.7"], "203.0.113.7"),
        (
            "127.0.0.1",
            [b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-For: 203.0.113.7"],
            "203.0.113.7",
        ),
        ("127.0.0.1", [b"X-Forwarded-For: \xff\xfe"], "127.0.0.1"),
        ("127.0.0.1", [b"Forwarded: for=203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", [b"X-Real-IP: 203.0.113.7"], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
    ],
)
async def test_a_header_counts_only_from_a_trusted_gateway(
    tmp_path: Path,
    trusted: str,
    lines: list[bytes],
    client: str,
    more: bytes,
    lines_of_log: list[dict[str, Any]],
) -> None:
    rule = Recorder()
    proxied = running_proxy(
        tmp_path, access_rules=[rule], OLLAMA_PROXY_TRUSTED_PROXIES=trusted
    )
    async with proxied as proxy:
        assert "200" in await ask(proxy, *lines, *([more.rstrip()] if more else []))

    assert set(rule.seen) == {client}
    assert [line["client"] for line in lines_of_log] == [client]


async def test_an_ipv4_client_of_a_socket_for_both_is_named_as_ipv4() -> None:
    access = AccessControl(CorsPolicy(), None)
    lines = CIMultiDict[str]()
    assert access.client_address("::ffff:203.0.113.7", lines) == "203.0.113.7"
    assert access.client_address("2001:db8::7", lines) == "2001:db8::7"


async def test_a_megabyte_of_forwarding_is_served_like_any_request(
    tmp_path: Path,
) -> None:
    rule = Recorder()
    long = b"X-Forwarded-For: " + b"1.1.1.1," * 100_000 + b"203.0.113.7"
    proxied = running_proxy(
        tmp_path, access_rules=[rule], OLLAMA_PROXY_TRUSTED_PROXIES="127.0.0.1"
    )
    async with proxied as proxy:
        for more in ([], [ORIGIN.rstrip()]):
            assert "200" in await ask(proxy, long, *more)

    assert set(rule.seen) == {"203.0.113.7"}


@pytest.mark.parametrize("more", [[], [ORIGIN.rstrip()]], ids=["fast", "aiohttp"])
@pytest.mark.parametrize(
    "path", [b"/api/version", b"/api/ps"], ids=["taken", "refused"]
)
async def test_the_line_says_who_asked(
    tmp_path: Path,
    more: list[bytes],
    path: bytes,
    lines_of_log: list[dict[str, Any]],
) -> None:
    agent = b"User-Agent: Uptime-Kuma/1.0 " + b"x" * 9000
    async with running_proxy(tmp_path, access_rules=[Recorder()]) as proxy:
        await ask(proxy, agent, *more, path=path)
        await proxy.until(lambda: bool(lines_of_log))

    (line,) = lines_of_log
    assert line["client"] == "127.0.0.1"
    assert line["agent"].startswith("Uptime-Kuma/1.0 xxx")
    assert len(line["agent"]) == AGENT_LETTERS
    assert "key" not in line


@pytest.mark.parametrize("value", ["10.0.0.0/8, fd00::/8", "127.0.0.1", "10.1.2.3/8"])
def test_networks_and_addresses_are_taken(value: str) -> None:
    settings = load_settings({"OLLAMA_PROXY_TRUSTED_PROXIES": value})
    assert settings.trusted_proxies


@pytest.mark.parametrize("value", ["gateway", "10.0.0.0/40", "0.0.0.0/0", "::/0", "*"])
def test_what_is_no_network_or_all_of_them_is_one_sentence(value: str) -> None:
    with pytest.raises(SettingsError, match="OLLAMA_PROXY_TRUSTED_PROXIES") as caught:
        load_settings({"OLLAMA_PROXY_TRUSTED_PROXIES": value})
    assert len(caught.value.faults) == 1
