"""The metrics' own address: metrics and health alone, without a key, bounded."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.config.loader import load_settings
from ollama_proxy.core.access.hosts import PublicHosts
from ollama_proxy.server.metrics_listener import MOST_BYTES, MetricsListener
from tests.black_box import Launch, launched_proxy, run_cli
from tests.ports import held_port

METRICS = b"# TYPE x counter\nx_total 1.0\n"


@contextlib.asynccontextmanager
async def listening(
    *, most: int = 64, limit_s: float = 60.0, metrics: bytes = METRICS
) -> AsyncIterator[int]:
    bound = socket.create_server(("127.0.0.1", 0))
    hosts = PublicHosts(("metrics.example.com",))
    listener = MetricsListener(lambda: metrics, hosts, most=most, limit_s=limit_s)
    await listener.start(bound)
    try:
        yield bound.getsockname()[1]
    finally:
        listener.close()
        await asyncio.sleep(0.005)


async def send(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(30.0):
            return await reader.read()
    finally:
        writer.close()


def get(target: str, *lines: str, method: str = "GET") -> bytes:
    head = [f"{method} {target} HTTP/1.1", "Host: localhost", *lines, "", ""]
    return "\r\n".join(head).encode()


@pytest.mark.parametrize("target", ["/metrics", "/metrics?name=x"])
async def test_it_has_the_metrics(target: str) -> None:
    async with listening() as port:
        head, _, body = (await send(port, get(target))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/plain; version=" in head
    assert b"Content-Length: %d" % len(METRICS) in head
    assert body == METRICS


async def test_a_head_has_no_body() -> None:
    async with listening() as port:
        head, _, body = (await send(port, get("/metrics", method="HEAD"))).partition(
            b"\r\n\r\n"
        )
    assert b"Content-Length: %d" % len(METRICS) in head
    assert body == b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/healthz"), b"200"),
        (get("/"), b"404"),
        (get("/status"), b"404"),
        (get("/api/tags"), b"404"),
        (get("/metrics/"), b"404"),
        (get("//metrics"), b"404"),
        (get("/-/wake", method="POST"), b"404"),
        (get("/metrics", method="POST"), b"405"),
        (get("http://localhost/metrics"), b"404"),
        (b"\r\n\r\n", b"400"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"\x16\x03\x01 x\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/2.0\r\n\r\n", b"400"),
        (get("/metrics", "X: " + "x" * MOST_BYTES), b"431"),
    ],
)
async def test_it_has_nothing_else(request_: bytes, status: bytes) -> None:
    async with listening() as port:
        answer = await send(port, request_)
    assert answer.split(b" ")[1] == status
    assert b"x_total" not in answer


@pytest.mark.parametrize(
    "mark",
    ["Origin: http://evil.example", "Sec-Fetch-Site: none", "User-Agent: Mozilla/5.0"],
)
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example:9464", b"403"),
        ("", b"200"),
        ("127.0.0.1:9464", b"200"),
        ("[::1]:9464", b"200"),
        ("prometheus:9464", b"200"),
        ("metrics.example.com", b"200"),
    ],
)
async def test_a_page_of_a_stranger_does_not_read_it_by_rebinding(
    mark: str, host: str, status: bytes
) -> None:
    line = f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n{mark}\r\n\r\n"
    async with listening() as port:
        assert (await send(port, line.encode())).split(b" ")[1] == status


async def test_a_scraper_may_use_any_name() -> None:
    line = b"GET /metrics HTTP/1.1\r\nHost: a.example\r\nUser-Agent: Prometheus\r\n\r\n"
    async with listening() as port:
        assert (await send(port, line)).split(b" ")[1] == b"200"


async def test_who_sends_nothing_is_disconnected() -> None:
    async with listening(limit_s=0.2) as port:
        with contextlib.suppress(ConnectionError):
            assert await send(port, b"GET /met") == b""


async def test_who_reads_nothing_is_disconnected() -> None:
    async with listening(limit_s=0.5, metrics=b"x" * 50_000_000) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/metrics"))
        await asyncio.sleep(1.5)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(30.0):
                assert len(await reader.read()) < 50_000_000
        writer.close()


async def test_more_connections_than_the_bound_are_closed_at_once() -> None:
    async with listening(most=3) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await asyncio.sleep(0.05)
        with contextlib.suppress(ConnectionError):
            assert await send(port, get("/metrics")) == b""
        for _, writer in silent:
            writer.close()
        async with asyncio.timeout(30.0):
            answer = b""
            while not answer:
                await asyncio.sleep(0.01)
                with contextlib.suppress(ConnectionError):
                    answer = await send(port, get("/metrics"))
        assert answer.endswith(METRICS)


def test_a_proxy_serves_them_there_without_a_key(tmp_path: Path) -> None:
    port = held_port()
    env = {
        "OLLAMA_PROXY_METRICS_LISTEN": f"127.0.0.1:{port}",
        "OLLAMA_PROXY_AUTH": "keys",
    }
    with launched_proxy(tmp_path / "state", Launch(is_forked=True), env) as proxy:
        there = asyncio.run(send(port, get("/metrics")))
        here = proxy.raw(get("/metrics", "Connection: close"))

    assert b"ollama_proxy_requests" in there
    assert here.startswith(b"HTTP/1.1 401")


def test_an_address_in_use_is_one_sentence(tmp_path: Path) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    where = f"127.0.0.1:{taken.getsockname()[1]}"
    env = {
        "OLLAMA_PROXY_STATE_DIR": str(tmp_path),
        "OLLAMA_PROXY_METRICS_LISTEN": where,
        "OLLAMA_HOST": "127.0.0.1:0",
    }
    ran = run_cli("serve", **env)
    taken.close()

    assert ran.returncode != 0
    assert ran.stderr.strip().endswith(
        f"can't listen on {where} (Address already in use); stop what listens there, or"
        " set OLLAMA_PROXY_METRICS_LISTEN to another host:port"
    )
    assert len(ran.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "value", ["127.0.0.1", "localhost", "x:99999", "::1", "a b:1", "127.1:9464"]
)
def test_what_is_no_address_with_a_port_is_refused(value: str) -> None:
    with pytest.raises(Exception, match="OLLAMA_PROXY_METRICS_LISTEN"):
        load_settings({"OLLAMA_PROXY_METRICS_LISTEN": value})


@pytest.mark.parametrize("value", [":9464", "0.0.0.0:9464", "[::1]:9464", "a.b:1"])
def test_an_address_with_a_port_is_taken(value: str) -> None:
    listen = load_settings({"OLLAMA_PROXY_METRICS_LISTEN": value}).metrics_listen
    assert listen is not None
    assert listen.port in {9464, 1}
