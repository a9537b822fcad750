"""Web pages under a foreign name, on an address that other machines reach."""

import json
from pathlib import Path

import pytest
from structlog.testing import LogCapture

from ollama_proxy.base import log
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, generate, running_proxy

OF_BROWSERS = [
    {"Origin": "http://evil.example"},
    {"Referer": "http://elsewhere.example/"},
    {"Cookie": "a=b"},
    {"Sec-Fetch-Site": "same-origin"},
    {"sec-fetch-mode": "cors"},
    {"Accept-Language": "en"},
    {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"},
]
WAYS = pytest.mark.parametrize(
    "way", [{}, {"Prefer": "wait=0"}], ids=["plain", "by aiohttp"]
)


async def ask(
    proxy: RunningProxy, host: str, headers: dict[str, str], path: str = "/api/generate"
) -> tuple[int, str]:
    sent = {"Host": host, **headers}
    async with proxy.session.post(
        proxy.url + path, json=generate(), headers=sent
    ) as reply:
        return reply.status, await reply.text()


@WAYS
@pytest.mark.parametrize("headers", OF_BROWSERS, ids=lambda one: next(iter(one)))
async def test_a_page_under_a_foreign_name_wakes_nothing_and_is_told_the_setting(
    tmp_path: Path, headers: dict[str, str], way: dict[str, str]
) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        for path in ("/api/generate", "/v1/chat/completions", "/-/wake"):
            status, words = await ask(proxy, "evil.example", headers | way, path)
            assert status == 403
            assert "OLLAMA_PROXY_ALLOWED_HOSTS" in words
            assert "'evil.example'" in words

        assert backend.launches == 0


@WAYS
async def test_a_program_may_use_any_name_with_one_warning(
    tmp_path: Path,
    way: dict[str, str],
    errors_logged: LogCapture,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        for host in (
            "op_0a1b2c3d_secret.gpu.example",
            "gpu.example",
            "gpu.example:11434",
            "other.example",
        ):
            status, _ = await ask(proxy, host, {"User-Agent": "curl/8"} | way)
            assert status == 503
    told = [one for one in errors_logged.entries if one["event"] == log.HOST_FOREIGN]
    assert ["'op_….gpu.example'" in one["reason"] for one in told] == [True]


@WAYS
@pytest.mark.parametrize("host", ["192.0.2.7:11434", "nas", "nas.local", "[::1]:1"])
async def test_a_page_under_a_name_of_the_own_network_is_served(
    tmp_path: Path, host: str, way: dict[str, str]
) -> None:
    async with running_proxy(tmp_path) as proxy:
        for headers in OF_BROWSERS[1:]:
            assert (await ask(proxy, host, headers | way))[0] == 503


async def test_a_name_can_be_allowed(tmp_path: Path) -> None:
    async with running_proxy(
        tmp_path, OLLAMA_PROXY_ALLOWED_HOSTS="ollama.example.com"
    ) as proxy:
        page = {"Accept-Language": "en"}
        assert (await ask(proxy, "ollama.example.com", page))[0] == 503
        assert (await ask(proxy, "other.example.com", page))[0] == 403


async def test_a_refusal_shows_little_of_a_long_name(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        status, words = await ask(proxy, f"{'a' * 5000}.example", OF_BROWSERS[1])
        assert status == 403
        assert len(json.loads(words)["error"]) < 400
