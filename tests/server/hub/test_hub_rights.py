"""Which key may do what on a hub, through the gate itself."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.fakes.keys import make_key, of_routes, put_keys
from tests.proxy import ORDERS, RunningProxy, generate, running_proxy

READER = make_key(21, "reader", of_routes(RouteClass.READ))
WORKER = make_key(22, "worker", of_routes(RouteClass.JOBS))
CHATTER = make_key(23, "chatter", of_routes(RouteClass.CHAT))
OWNER = make_key(24, "owner", of_routes(RouteClass.ADMIN))
NOBODY: dict[str, str] = {}


@contextlib.asynccontextmanager
async def hub(folder: Path) -> AsyncIterator[RunningProxy]:
    with closing(SqliteStore(folder)) as store:
        put_keys(store, READER, WORKER, CHATTER, OWNER)
    async with running_proxy(folder, OLLAMA_PROXY_HUB="true") as proxy:
        yield proxy


LISTS, JOBS = ("GET", "/nodes"), ("POST", "/jobs")
DRAIN, REMOVE = ("POST", "/-/nodes/x/drain"), ("DELETE", "/-/nodes/x")
CASES = [
    (LISTS, READER.bearer, 200),
    (LISTS, OWNER.bearer, 200),
    (LISTS, ORDERS, 200),
    (LISTS, WORKER.bearer, 403),
    (LISTS, CHATTER.bearer, 403),
    (LISTS, NOBODY, 401),
    (("GET", "/nodes/x"), READER.bearer, 404),
    (("GET", "/nodes/x%20y"), READER.bearer, 404),
    (("GET", "/nodes/x"), NOBODY, 401),
    (("GET", "/nodes/heartbeat"), NOBODY, 401),
    (("GET", "/%6Eodes"), NOBODY, 401),
    (JOBS, WORKER.bearer, 200),
    (JOBS, CHATTER.bearer, 403),
    (JOBS, READER.bearer, 403),
    (JOBS, OWNER.bearer, 403),
    (JOBS, ORDERS, 403),
    (JOBS, NOBODY, 401),
    (("POST", "/%6Aobs"), NOBODY, 401),
    (("GET", "/-/nodes"), OWNER.bearer, 200),
    (("GET", "/-/nodes"), READER.bearer, 403),
    (DRAIN, OWNER.bearer, 404),
    (DRAIN, ORDERS, 404),
    (DRAIN, READER.bearer, 403),
    (DRAIN, NOBODY, 401),
    (REMOVE, WORKER.bearer, 403),
    (REMOVE, OWNER.bearer, 404),
    (("POST", "/nodes/heartbeat"), OWNER.bearer, 401),
]


@pytest.mark.parametrize(("request_line", "headers", "status"), CASES)
async def test_each_right_opens_its_own_routes(
    tmp_path: Path, request_line: tuple[str, str], headers: dict[str, str], status: int
) -> None:
    method, path = request_line
    async with hub(tmp_path) as proxy:
        from_here = f"{proxy.hub_url}{path}"
        async with proxy.session.request(
            method,
            from_here,
            json=generate() if method == "POST" else None,
            headers=headers,
        ) as answer:
            await answer.read()

    assert answer.status == status


@pytest.mark.parametrize("headers", [NOBODY, CHATTER.bearer])
@pytest.mark.parametrize("request_line", [JOBS, LISTS, ("GET", "/nodes/x")])
async def test_a_client_of_the_former_hub_reads_why_its_key_is_refused(
    tmp_path: Path, request_line: tuple[str, str], headers: dict[str, str]
) -> None:
    method, path = request_line
    async with hub(tmp_path) as proxy:
        from_here = f"{proxy.hub_url}{path}"
        async with proxy.session.request(method, from_here, headers=headers) as answer:
            body = await answer.json()

    assert "key" in body["detail"]
    assert body["detail"] == body["error"]
    assert ("WWW-Authenticate" in answer.headers) is (answer.status == 401)
