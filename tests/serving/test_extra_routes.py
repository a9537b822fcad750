"""Only what an Ollama of ours is known to serve wakes one."""

import io
from asyncio import StreamReader, StreamWriter
from pathlib import Path

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.config.loader import load_settings
from ollama_proxy.core.ollama.lessons import Lessons
from ollama_proxy.core.ollama.routes import ColdAnswer, classify
from ollama_proxy.serving.extra_routes import (
    LEARNT_ROUTES,
    ROUTE_BYTES,
    ExtraRoutes,
    parse_routes,
)
from ollama_proxy.serving.lesson_book import LessonBook
from ollama_proxy.store.memory import MemoryPlace
from tests.fakes.instance import InProcessBackend
from tests.fakes.raw_upstream import raw_upstream, reply
from tests.fakes.store import FaultyPlace
from tests.proxy import RunningProxy, running_proxy
from tests.virtual_time import SetClock

SCANNED = [
    ("POST", "/api/login"),
    ("POST", "/v1/graphql"),
    ("POST", "/v1/rerank"),
    ("POST", "/api/index.php"),
    ("PUT", "/api/of/the/future"),
    ("DELETE", "/v1/files/file-1"),
    ("PATCH", "/api/chat"),
    ("POST", "/.env"),
    ("GET", "/v1/rerank"),
    ("HEAD", "/v1/rerank"),
]


def learnt(lessons: Lessons) -> MemoryPlace:
    place = MemoryPlace()
    place.put_lessons(lessons)
    return place


def newest() -> str:
    """Return the version of an Ollama that has no routes of earlier ones."""
    return "0.33.0"


async def ask(proxy: RunningProxy, method: str, path: str, status: int = 0) -> int:
    """Send a request that a simulator answers with ``status``, if that is not 0."""
    headers = {"X-Simulator-Fault": f"status={status}"} if status else {}
    async with proxy.session.request(
        method, proxy.url + path, json={"model": "tiny"}, headers=headers
    ) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize(("method", "path"), SCANNED)
@pytest.mark.parametrize("extra", ["", "Expect: 100-continue\r\n"])
async def test_what_a_scanner_asks_for_gets_ollamas_own_answer_and_wakes_nothing(
    tmp_path: Path, method: str, path: str, extra: str
) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        said = await proxy.raw(
            f"{method} {path}?q=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"{extra}Content-Length: 2\r\n\r\n{{}}".encode()
        )

        assert backend.launches == 0
    status, text = (
        (b"405", b"405 method not allowed")
        if path == "/api/chat"
        else (b"404", b"404 page not found")
    )
    assert said.startswith(b"HTTP/1.1 " + status)
    assert said.endswith(text) or method == "HEAD"


async def test_a_route_that_an_instance_answered_wakes_from_then_on(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        assert await ask(proxy, "POST", "/v1/rerank?secret=1", 200) == 200
        await proxy.stop()
        assert await ask(proxy, "POST", "/v1/rerank2") == 404
        assert proxy.state == "cold"
    async with running_proxy(tmp_path) as proxy:
        assert await ask(proxy, "PUT", "/v1/rerank") == 404
        assert await ask(proxy, "POST", "/v1/rerank?secret=2") == 503
        assert proxy.state == "starting"
    assert b"secret" not in (tmp_path / "state.sqlite3").read_bytes()


@pytest.mark.parametrize("status", [404, 405, 502, 503, 504, 307])
async def test_what_an_instance_does_not_have_is_not_learnt(
    tmp_path: Path, status: int
) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        assert await ask(proxy, "POST", "/v1/rerank", status) == status
        await proxy.stop()

        assert await ask(proxy, "POST", "/v1/rerank") == 404


async def test_what_only_reads_is_relayed_but_never_learnt(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        for method in ("GET", "HEAD", "OPTIONS"):
            assert await ask(proxy, method, "/v1/rerank", 200) == 200
        await proxy.stop()

        assert await ask(proxy, "GET", "/v1/rerank") == 404


async def test_a_listed_route_wakes_and_counts_as_use(tmp_path: Path) -> None:
    routes = "POST /v1/rerank, POST /v1/audio/*,GET /wake-me"
    async with running_proxy(tmp_path, OLLAMA_PROXY_EXTRA_ROUTES=routes) as proxy:
        assert await ask(proxy, "POST", "/v1/audio") == 404
        assert await ask(proxy, "POST", "/v1/rerank/") == 404
        assert await ask(proxy, "GET", "/v1/rerank") == 404
        assert proxy.state == "cold"
        assert await ask(proxy, "POST", "/v1/audio/speech") == 503
        await proxy.until(lambda: proxy.state == "ready")
        await proxy.stop()
        assert await ask(proxy, "GET", "/wake-me") == 503


@pytest.mark.parametrize(("path", "is_use"), [("/v1/rerank", True), ("/v1/x", False)])
async def test_only_routes_that_wake_hold_an_instance(
    tmp_path: Path, path: str, *, is_use: bool
) -> None:
    async def rank(_reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(reply(b'{"results":[]}'))

    clock = SetClock()
    async with (
        raw_upstream(rank) as upstream,
        running_proxy(
            tmp_path,
            backend=StaticBackend(upstream.url),
            clock=clock,
            OLLAMA_PROXY_EXTRA_ROUTES="POST /v1/rerank",
        ) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        before = proxy.parts.pool.controllers[0].record.last_used
        clock.moment += 60.0
        assert await ask(proxy, "POST", path) == 200
        after = proxy.parts.pool.controllers[0].record.last_used

    assert (after > before) is is_use


async def test_a_large_body_for_an_unknown_route_is_relayed_as_it_comes(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_MAX_WAITING_BYTES="100k") as proxy:
        await proxy.wake()
        headers = {"X-Simulator-Fault": "status=201"}
        async with proxy.session.post(
            f"{proxy.url}/v1/files", data=io.BytesIO(bytes(3 << 20)), headers=headers
        ) as answer:
            assert answer.status == 201


def test_so_many_routes_are_learnt_and_no_more() -> None:
    book = LessonBook(MemoryPlace(), SetClock())
    routes = ExtraRoutes([], book, newest)
    for number in range(LEARNT_ROUTES + 50):
        path = f"/v1/{number}"
        routes.heard(classify("POST", path), "POST", path, 200)
        routes.heard(classify("POST", path), "POST", path, 200)

    assert book.lessons.routes == [f"POST /v1/{n}" for n in range(LEARNT_ROUTES)]


@pytest.mark.parametrize(
    ("path", "is_learnt"),
    [
        ("/" + "x" * (ROUTE_BYTES - len("PUT /")), True),
        ("/" + "x" * (ROUTE_BYTES - len("PUT ")), False),
        ("/\u00e9", False),
        ("/\udcff", False),
        ("//api/chat", False),
        ("/api/chat", True),
    ],
)
def test_a_route_is_learnt_if_it_is_short_plain_and_none_of_ollamas(
    path: str, *, is_learnt: bool
) -> None:
    routes = ExtraRoutes([], LessonBook(MemoryPlace(), SetClock()), newest)
    routes.heard(classify("PUT", path), "PUT", path, 400)
    resolved = routes.resolve(classify("PUT", path), "PUT", path)

    assert (resolved.asleep is ColdAnswer.WAKE) is is_learnt


def test_a_disk_that_is_full_keeps_nothing_from_being_learnt() -> None:
    store = FaultyPlace(is_full=True)
    routes = ExtraRoutes([], LessonBook(store, SetClock()), newest)
    routes.heard(classify("POST", "/x"), "POST", "/x", 200)

    assert routes.resolve(classify("POST", "/x"), "POST", "/x").counts_as_use
    assert store.lessons() == Lessons()


@pytest.mark.parametrize(
    ("path", "version", "wakes"),
    [
        ("/v1/images/generations", "0.14.2", False),
        ("/v1/images/generations", "0.14.3", True),
        ("/v1/images/generations", "0.32.5-rc1", True),
        ("/v1/images/generations", "0.32.6", False),
        ("/v1/images/generations", "0.33.0", False),
        ("/v1/images/edits", "0.14.3", False),
        ("/v1/images/edits", "0.20.0", True),
        ("/v1/images/edits", "", False),
        ("/v1/images/others", "0.20.0", False),
    ],
)
def test_a_route_that_only_earlier_ollamas_had_wakes_one_of_those(
    path: str, version: str, *, wakes: bool
) -> None:
    book = LessonBook(MemoryPlace(), SetClock())
    routes = ExtraRoutes([], book, lambda: version)
    resolved = routes.resolve(classify("POST", path), "POST", path)

    assert resolved.counts_as_use is wakes


async def test_an_image_is_drawn_by_an_earlier_ollama_that_was_asleep(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_ASLEEP_VERSION="0.20.0") as proxy:
        assert await ask(proxy, "POST", "/v1/images/generations") == 503


def test_a_route_of_ollamas_own_is_left_as_it_is() -> None:
    routes = ExtraRoutes(
        ["GET *"], LessonBook(learnt(Lessons(["GET /"])), SetClock()), newest
    )
    for path in ("/", "/api/tags", "/api/tags/"):
        route = classify("GET", path)

        assert routes.resolve(route, "GET", path) is route


@pytest.mark.parametrize(
    ("text", "routes"),
    [
        ("POST /v1/rerank", ("POST /v1/rerank",)),
        (" POST  /a , PUT /b/*,", ("POST /a", "PUT /b/*")),
        ("", ()),
    ],
)
def test_routes_are_listed_by_method_and_path(
    text: str, routes: tuple[str, ...]
) -> None:
    assert parse_routes(text) == routes


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("/v1/rerank", "is no route; write POST /v1/rerank"),
        ("post /v1/rerank", "is no route"),
        ("POST v1/rerank", "is no route"),
        ("POST /v1/rerank?x=1", "is no route"),
        ("POST /a*b", "is no route"),
        ("POST /api/chat", "is a route of Ollama's own"),
        ("GET /status", "is a route of the proxy's own"),
        ("POST /-/wake", "is a route of the proxy's own"),
    ],
)
def test_a_route_that_is_none_is_a_fault_of_the_settings(text: str, fault: str) -> None:
    with pytest.raises(Exception, match=fault) as raised:
        load_settings({"OLLAMA_PROXY_EXTRA_ROUTES": text})

    assert "OLLAMA_PROXY_EXTRA_ROUTES: " in str(raised.value)
