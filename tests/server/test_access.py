"""The gate before every route, asleep and awake."""

import contextlib
import http.client
from pathlib import Path

import pytest

from ollama_proxy.core.access.facts import AccessFacts
from ollama_proxy.core.access.hosts import HostPolicy
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.routes import Kind
from tests.black_box import Launch, ProxyProcess, forked_proxy, launched_proxy
from tests.fakes.instance import InProcessBackend
from tests.go_listen import HAS_IPV6
from tests.proxy import RunningProxy, generate, running_proxy

UI = "http://localhost:3000"


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_a_foreign_page_wakes_nothing_and_learns_nothing(
    tmp_path: Path, origin: str
) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        for method, path in (("POST", "/api/generate"), ("GET", "/status")):
            async with proxy.session.request(
                method,
                f"{proxy.url}{path}",
                json=generate(),
                headers={"Origin": origin},
            ) as reply:
                assert (reply.status, await reply.read()) == (403, b"")
                assert "Access-Control-Allow-Origin" not in reply.headers
                assert "Content-Type" not in reply.headers

        assert backend.launches == 0


@pytest.mark.parametrize("path", ["/api/chat", "/nowhere"])
async def test_a_preflight_is_answered_asleep(tmp_path: Path, path: str) -> None:
    async with (
        running_proxy(tmp_path) as proxy,
        proxy.session.options(f"{proxy.url}{path}", headers={"Origin": UI}) as reply,
    ):
        assert reply.status == 204
        assert reply.headers["Access-Control-Allow-Origin"] == UI
        assert reply.headers["Access-Control-Max-Age"] == "43200"
        assert "X-Stainless-Os" in reply.headers["Access-Control-Allow-Headers"]
        assert reply.headers.getall("Vary") == [
            "Origin",
            "Access-Control-Request-Method",
            "Access-Control-Request-Headers",
        ]


async def test_every_answer_to_an_allowed_origin_can_be_shown(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        for path, status in (("/api/generate", 503), ("/nowhere", 404)):
            async with proxy.session.post(
                f"{proxy.url}{path}", json=generate(), headers={"Origin": UI}
            ) as reply:
                assert reply.status == status
                assert reply.headers["Access-Control-Allow-Origin"] == UI
                assert reply.headers["Vary"] == "Origin"
        await proxy.until(lambda: proxy.state == "ready")
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(), headers={"Origin": UI}
        ) as reply:
            assert reply.status == 200
            assert reply.headers.getall("Access-Control-Allow-Origin") == [UI]
            await reply.read()


async def test_an_added_origin_is_allowed(tmp_path: Path) -> None:
    async with (
        running_proxy(tmp_path, OLLAMA_ORIGINS="https://ui.example") as proxy,
        proxy.session.get(
            f"{proxy.url}/api/tags", headers={"Origin": "https://ui.example"}
        ) as reply,
    ):
        assert reply.status == 200


def test_a_loopback_server_takes_no_foreign_host(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        good, _ = proxy.post("/api/show", {"model": "llama3.2"}, Host="nas.local")
        bad, body = proxy.post("/api/show", {"model": "llama3.2"}, Host="evil.example")

        assert good == 200
        assert (bad, body) == (403, b"")
        assert proxy.post("/-/stop", {}, Host="evil.example")[0] == 403


def asked(proxy: ProxyProcess, client: str, host: str) -> int:
    """Return the status of a GET at one of this machine's addresses."""
    port = int(proxy.url.rpartition(":")[2])
    connection = http.client.HTTPConnection(client, port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/status", headers={"Host": host})
        return connection.getresponse().status


@pytest.mark.parametrize("host", ["0.0.0.0", "", "[::]"])
def test_a_server_on_every_address_takes_any_host_over_ipv4_and_ipv6(
    tmp_path: Path, host: str
) -> None:
    with launched_proxy(tmp_path / "s", Launch(host=host), {}) as proxy:
        for client in ("127.0.0.1", *(["::1"] if HAS_IPV6 else [])):
            assert asked(proxy, client, "public.example") == 200
            assert asked(proxy, client, "[::ffff:8.8.8.8]:1") == 200


def test_a_loopback_server_takes_its_own_address_as_ipv6_writes_it_too(
    tmp_path: Path,
) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        assert asked(proxy, "127.0.0.1", "[::ffff:127.0.0.1]:11434") == 200
        assert asked(proxy, "127.0.0.1", "[::ffff:8.8.8.8]:11434") == 403


ZONE = "a" * 100


@pytest.mark.parametrize(
    ("host", "is_taken"),
    [
        (f"[::1%{ZONE}]", True),
        (f"[fe80::1%{ZONE}]", False),
        (f"127.0.0.1%{ZONE}", False),
        (f"{ZONE}.localhost", True),
        (f"127.0.0.1.{ZONE}", False),
        (f"[{'0:' * 40}1]", False),
    ],
)
def test_a_long_host_is_judged_as_a_short_one(host: str, *, is_taken: bool) -> None:
    assert HostPolicy("machine", frozenset()).takes(host) is is_taken


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("OPTIONS", "/api/chat", "POST"),
        ("OPTIONS", "/api/tags", "HEAD, GET"),
        ("HEAD", "/v1/models/x", "GET"),
        ("POST", "/api/chat", None),
        ("HEAD", "/api/tags", None),
        ("OPTIONS", "/nope", None),
    ],
)
async def test_a_refusal_names_the_methods_where_a_real_ollama_does(
    tmp_path: Path, method: str, path: str, allow: str | None
) -> None:
    async with (
        running_proxy(tmp_path) as proxy,
        proxy.session.request(
            method, proxy.url + path, headers={"Origin": "http://evil.example"}
        ) as reply,
    ):
        assert (reply.status, reply.headers.get("Allow")) == (403, allow)


KINDS_OF_REQUESTS = (
    ("GET", "/", None),
    ("HEAD", "/", None),
    ("GET", "/api/version", None),
    ("GET", "/api/tags", None),
    ("POST", "/api/show", {"model": "tiny"}),
    ("POST", "/api/generate", generate()),
    ("POST", "/v1/chat/completions", {"model": "tiny", "messages": []}),
    ("POST", "/api/pull", {"model": "tiny"}),
    ("DELETE", "/api/delete", {"model": "tiny"}),
    ("POST", "/api/me", None),
    ("GET", "/nowhere", None),
    ("GET", "/api/generate", None),
    ("GET", "/api/tags/", None),
    ("GET", "/status", None),
    ("GET", "/metrics", None),
    ("GET", "/-/journal", None),
    ("POST", "/-/wake", None),
    ("POST", "/-/stop", None),
    ("POST", "/-/nothing", None),
    ("OPTIONS", "/api/chat", None),
)
BY_AIOHTTP = {"Prefer": "wait=0"}
"""A header with which a request is none of the fast path's."""


def deny(facts: AccessFacts) -> Reply:
    assert facts.peer == "127.0.0.1"
    return Reply(401, b"no", (("Content-Type", "text/plain"),))


def used(proxy: RunningProxy) -> float:
    return proxy.parts.pool.controllers[0].record.last_used


@pytest.mark.parametrize("headers", [{}, BY_AIOHTTP], ids=["plain", "by aiohttp"])
@pytest.mark.parametrize("is_ready", [False, True], ids=["cold", "ready"])
async def test_a_rule_that_denies_is_asked_before_anything_is_done(
    tmp_path: Path, headers: dict[str, str], is_ready: bool
) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend, access_rules=[deny]) as proxy:
        if is_ready:
            await proxy.wake()
        launches, last_used = backend.launches, used(proxy)
        for method, path, body in KINDS_OF_REQUESTS:
            async with proxy.session.request(
                method, f"{proxy.url}{path}", json=body, headers=headers
            ) as reply:
                text = b"" if method == "HEAD" else b"no"
                assert (path, reply.status, await reply.read()) == (path, 401, text)

        assert (backend.launches, used(proxy)) == (launches, last_used)


@pytest.mark.parametrize("headers", [{}, BY_AIOHTTP], ids=["plain", "by aiohttp"])
async def test_a_health_check_and_a_preflight_are_exempt_from_rules(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with running_proxy(tmp_path, access_rules=[deny]) as proxy:
        async with proxy.session.get(f"{proxy.url}/healthz", headers=headers) as reply:
            assert reply.status == 200
        async with proxy.session.options(
            f"{proxy.url}/api/chat", headers={"Origin": UI, **headers}
        ) as reply:
            assert reply.status == 204
        async with proxy.session.post(f"{proxy.url}/healthz", headers=headers) as reply:
            assert reply.status == 401


async def test_a_rule_sees_the_kind_and_the_headers_on_both_ways(
    tmp_path: Path,
) -> None:
    seen: list[tuple[str, str, Kind, str]] = []

    def look(facts: AccessFacts) -> None:
        key = facts.headers.get("authorization", "")
        seen.append((facts.method, facts.path, facts.kind, key))

    async with running_proxy(tmp_path, access_rules=[look]) as proxy:
        for headers in ({}, BY_AIOHTTP):
            key = {"Authorization": "Bearer x", **headers}
            async with proxy.session.get(f"{proxy.url}/api/tags?a=b", headers=key):
                pass

    assert seen == [("GET", "/api/tags", Kind.READ, "Bearer x")] * 2


async def test_an_order_to_the_proxy_counts_as_one_of_its_own(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        for path in ("/-/wake", "/-/nothing"):
            async with proxy.session.post(f"{proxy.url}{path}"):
                pass
        async with proxy.session.get(f"{proxy.url}/metrics") as reply:
            text = await reply.text()

    assert 'requests_total{kind="admin",outcome="answered"} 1.0' in text
    assert 'requests_total{kind="unknown",outcome="refused"} 0.0' in text
