"""Every route, with every standing of a key, on every way in, asleep, ready and held.

What is refused gets its status and nothing else happens: no launch, no queue, no use.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.base.tasks import scoped_task
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.ollama.routes import _NAMED
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.fakes.instance import InProcessBackend
from tests.fakes.keys import (
    DISABLED,
    EXPIRED,
    UNKNOWN,
    MadeKey,
    make_key,
    of_routes,
    put_keys,
)
from tests.proxy import HAS_FAST_PATH, RunningProxy, running_proxy

CHAT, EMBED, READ = RouteClass.CHAT, RouteClass.EMBED, RouteClass.READ
WRITE, ADMIN = RouteClass.WRITE, RouteClass.ADMIN
LISTED = "/v1/rerank"

ROUTES: list[tuple[str, str, RouteClass | None]] = [
    ("GET", "/", None),
    ("HEAD", "/", None),
    ("POST", "/", WRITE),
    ("GET", "/healthz", None),
    ("POST", "/-/login", None),
    ("POST", "/-/logout", None),
    ("GET", "/-/login", READ),
    ("GET", "/-/", READ),
    ("HEAD", "/-/", READ),
    ("POST", "/-/", READ),
    ("GET", "/api/version", READ),
    ("HEAD", "/api/version", READ),
    ("GET", "/api/status", READ),
    ("POST", "/api/me", READ),
    ("POST", "/api/signout", WRITE),
    ("DELETE", "/api/user/keys/abc", WRITE),
    ("GET", "/api/experimental/model-recommendations", READ),
    ("POST", "/api/experimental/web_search", CHAT),
    ("POST", "/api/experimental/web_fetch", CHAT),
    ("GET", "/api/tags", READ),
    ("HEAD", "/api/tags", READ),
    ("POST", "/api/show", READ),
    ("GET", "/api/ps", READ),
    ("GET", "/v1/models", READ),
    ("GET", "/v1/models/tiny", READ),
    ("HEAD", "/api/blobs/sha256:00", READ),
    ("POST", "/api/blobs/sha256:00", WRITE),
    ("POST", "/api/pull", WRITE),
    ("POST", "/api/push", WRITE),
    ("POST", "/api/create", WRITE),
    ("POST", "/api/copy", WRITE),
    ("DELETE", "/api/delete", WRITE),
    ("POST", "/api/generate", CHAT),
    ("POST", "/api/chat", CHAT),
    ("POST", "/api/embed", EMBED),
    ("POST", "/api/embeddings", EMBED),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/completions", CHAT),
    ("POST", "/v1/embeddings", EMBED),
    ("POST", "/v1/responses", CHAT),
    ("POST", "/v1/audio/transcriptions", CHAT),
    ("POST", "/v1/messages", CHAT),
    ("POST", LISTED, CHAT),
    ("GET", "/nowhere", READ),
    ("POST", "/nowhere", WRITE),
    ("PUT", "/api/chat", WRITE),
    ("OPTIONS", "/api/chat", READ),
    ("POST", "/api//chat", WRITE),
    ("POST", "/api/%63hat", CHAT),
    ("GET", "/status", READ),
    ("GET", "/metrics", READ),
    ("GET", "/-/wait?timeout=0", READ),
    ("GET", "/-/usage", READ),
    ("GET", "/-/journal", ADMIN),
    ("GET", "/-/plan", ADMIN),
    ("GET", "/-/keys", ADMIN),
    ("POST", "/-/keys", ADMIN),
    ("POST", "/-/sweep?dry_run=1", ADMIN),
    ("POST", "/-/abandon?launch=x", ADMIN),
    ("DELETE", "/-/pulls/tiny", ADMIN),
    ("GET", "/-/nothing", ADMIN),
    ("POST", "/status", READ),
    ("POST", "/-/wake", ADMIN),
    ("POST", "/-/stop", ADMIN),
]

HAVING = {
    one: make_key(20 + n, f"has {one}", of_routes(one))
    for n, one in enumerate(RouteClass)
}
LACKING = {
    one: make_key(40 + n, f"lacks {one}", of_routes(*(set(RouteClass) - {one, ADMIN})))
    for n, one in enumerate(RouteClass)
}
"""Keys with every right but one, and that to orders, which includes some reading."""

PLAIN: dict[str, str] = {}
BY_AIOHTTP = {"Prefer": "wait=0"}


@dataclass(frozen=True)
class Meter:
    """What a request must not change, if it is refused."""

    launches: int
    state: str
    last_used: float
    waiting: int
    in_flight: int
    demand: Any

    @classmethod
    def of(cls, proxy: RunningProxy, backend: InProcessBackend) -> "Meter":
        pool = proxy.parts.pool
        record = pool.controllers[0].record
        planned, _ = pool.plan()
        return cls(
            backend.launches,
            record.state.value,
            record.last_used,
            pool.waiting,
            pool.in_flight,
            planned.wanted,
        )


def credentials(needed: RouteClass) -> Iterator[tuple[MadeKey | None, int]]:
    """Yield keys that may not send a request, and the status that it gets."""
    yield None, 401
    yield UNKNOWN, 401
    yield DISABLED, 401
    yield EXPIRED, 401
    yield LACKING[needed], 403


async def status_of(
    proxy: RunningProxy,
    method: str,
    path: str,
    key: MadeKey | None,
    way: dict[str, str],
) -> tuple[int, bytes]:
    headers = way | (key.bearer if key is not None else {})
    body = {"model": "tiny", "name": "tiny", "input": "x", "stream": False}
    async with proxy.session.request(
        method,
        proxy.url + path,
        json=body if method in {"POST", "DELETE", "PUT"} else None,
        headers=headers,
        allow_redirects=False,
    ) as reply:
        return reply.status, await reply.read()


def make_keys(folder: Path) -> None:
    with closing(SqliteStore(folder)) as store:
        put_keys(store, DISABLED, EXPIRED, *HAVING.values(), *LACKING.values())


@contextlib.asynccontextmanager
async def proxy_that_is(
    state: str, folder: Path, *, is_fast: bool
) -> AsyncIterator[tuple[RunningProxy, InProcessBackend]]:
    make_keys(folder)
    backend = InProcessBackend(boot_s=600.0) if state == "held" else InProcessBackend()
    async with running_proxy(
        folder,
        backend=backend,
        OLLAMA_PROXY_EXTRA_ROUTES=f"POST {LISTED}",
        OLLAMA_PROXY_FAST_PATH=str(is_fast).lower(),
    ) as proxy:
        if state == "ready":
            await proxy.wake()
        if state != "held":
            yield proxy, backend
            return
        way = {"Prefer": "wait=600"}
        holding = status_of(proxy, "POST", "/api/generate", HAVING[CHAT], way)
        async with scoped_task(holding, name="held"):
            await proxy.until(lambda: proxy.parts.pool.waiting == 1)
            await proxy.until(lambda: backend.launches == 1)
            try:
                yield proxy, backend
            finally:
                backend.boot_s = 0.0  # the end would wait half a minute for its start


@pytest.mark.parametrize("state", ["asleep", "ready", "held"])
@pytest.mark.parametrize("is_fast", [True, False], ids=["fast path", "no fast path"])
async def test_what_is_refused_gets_its_status_and_changes_nothing(
    tmp_path: Path, state: str, *, is_fast: bool
) -> None:
    if is_fast and not HAS_FAST_PATH:
        pytest.skip("OLLAMA_PROXY_FAST_PATH turns it off")
    async with proxy_that_is(state, tmp_path, is_fast=is_fast) as (proxy, backend):
        before = Meter.of(proxy, backend)
        wrong = []
        for method, path, needed in ROUTES:
            if needed is None:
                continue
            for way in (PLAIN, BY_AIOHTTP) if is_fast else (PLAIN,):
                for key, wanted in credentials(needed):
                    status, body = await status_of(proxy, method, path, key, way)
                    name = key.key.name if key is not None else "none"
                    if status != wanted or (method != "HEAD" and b"error" not in body):
                        wrong.append((method, path, name, way, status, wanted))
        assert wrong == []
        await asyncio.sleep(0.05)
        assert Meter.of(proxy, backend) == before


@pytest.mark.parametrize("state", ["asleep", "ready", "held"])
@pytest.mark.parametrize("is_fast", [True, False], ids=["fast path", "no fast path"])
async def test_the_right_alone_is_enough_and_what_is_open_needs_no_key(
    tmp_path: Path, state: str, *, is_fast: bool
) -> None:
    if is_fast and not HAS_FAST_PATH:
        pytest.skip("OLLAMA_PROXY_FAST_PATH turns it off")
    async with proxy_that_is(state, tmp_path, is_fast=is_fast) as (proxy, _):
        wrong = []
        for method, path, needed in ROUTES:
            keys = [None, UNKNOWN, DISABLED] if needed is None else [HAVING[needed]]
            for way in (PLAIN, BY_AIOHTTP) if is_fast else (PLAIN,):
                for key in keys:
                    status, _ = await status_of(proxy, method, path, key, way)
                    if status in {401, 403}:
                        wrong.append((method, path, way, status))
        assert wrong == []


def test_the_matrix_has_every_route_of_ollama() -> None:
    tried = {(method, path.partition("?")[0]) for method, path, _ in ROUTES}
    examples = {
        "/api/blobs/:digest": "/api/blobs/sha256:00",
        "/v1/models/:model": "/v1/models/tiny",
        "/api/user/keys/:key": "/api/user/keys/abc",
    }
    known = {(method, examples.get(name, name)) for name, method in _NAMED}
    assert known <= tried


async def test_the_matrix_has_every_route_of_the_proxy(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        app = proxy.runner.app
        own = {
            (route.method, route.resource.canonical)
            for route in app.router.routes()
            if route.resource is not None
            and route.resource.canonical.startswith(("/-/", "/status", "/metrics"))
        }
    tried = {(method, path.partition("?")[0]) for method, path, _ in ROUTES}
    patterns = {path for _, path in own if "{" in path}
    assert own - {one for one in own if one[1] in patterns or one[0] == "HEAD"} <= tried
    assert all(path.startswith(("/-/keys/", "/-/pulls/")) for path in patterns)
