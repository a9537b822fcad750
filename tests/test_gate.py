"""The gate before every route, asleep and awake."""

from pathlib import Path

import pytest

from tests.black_box import proxy_process
from tests.fakes.instance import InProcessBackend
from tests.proxy import generate, running_proxy

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
    with proxy_process(tmp_path / "s") as proxy:
        good, _ = proxy.post("/api/show", {"model": "llama3.2"}, Host="nas.local")
        bad, body = proxy.post("/api/show", {"model": "llama3.2"}, Host="evil.example")

        assert good == 200
        assert (bad, body) == (403, b"")
        assert proxy.post("/-/stop", {}, Host="evil.example")[0] == 403
