"""What the hub tells of its nodes, and the orders about them."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.core.nodes.node_keys import NodeKey, NodeKeyId
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.hub.tunnels import Tunnels
from ollama_proxy.server.hub.nodes import NodeHandlers
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.fakes.nodes import KeysOfNodes, ListedNodes, listed_node

Client = TestClient[web.Request, web.Application]

FORMER_KEYS = [
    *("node_id", "ipv4", "ipv6", "port", "models", "metadata", "load", "last_seen"),
    *("status", "active_jobs", "failure_count"),
]


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path)


@contextlib.asynccontextmanager
async def asked(
    store: SqliteStore, nodes: ListedNodes, keys: KeysOfNodes | None = None
) -> AsyncIterator[Client]:
    app, audit = web.Application(), Audit(store, SystemClock())
    app.add_routes(
        NodeHandlers(
            nodes, keys or KeysOfNodes(), Tunnels(lambda _: None), audit
        ).routes()
    )
    try:
        async with TestClient(TestServer(app)) as client:
            yield client
    finally:
        store.close()


async def test_nodes_are_listed_as_the_former_hub_did(store: SqliteStore) -> None:
    nodes = ListedNodes([listed_node("a"), listed_node("b", status="offline")])
    async with asked(store, nodes) as client, client.get("/nodes") as answer:
        told = await answer.json()

    assert [one["node_id"] for one in told] == ["a", "b"]
    assert [*told[0]][: len(FORMER_KEYS)] == FORMER_KEYS
    assert told[1]["status"] == "offline"


@pytest.mark.parametrize("name", ["box", "my box", "küche", "a%20b", "drain"])
async def test_a_node_is_shown_by_its_name(store: SqliteStore, name: str) -> None:
    nodes = ListedNodes([listed_node(name)])
    async with asked(store, nodes) as client, client.get(web_path(name)) as answer:
        told = await answer.json()

    assert (answer.status, told["node_id"], told["errors"]) == (200, name, [])


def web_path(name: str) -> str:
    return f"/nodes/{name.replace('%', '%25')}"


async def test_an_unknown_node_is_one_in_a_sentence(store: SqliteStore) -> None:
    async with asked(store, ListedNodes()) as client, client.get("/nodes/x") as answer:
        told = await answer.json()

    assert answer.status == 404
    assert "no node is named 'x'" in told["detail"]
    assert told["error"] == told["detail"]


@pytest.mark.parametrize(
    ("method", "path", "order"),
    [
        ("POST", "/-/nodes/box/drain", "drain"),
        ("POST", "/-/nodes/box/undrain", "undrain"),
        ("DELETE", "/-/nodes/box", "rm"),
    ],
)
async def test_an_order_is_carried_out_and_noted(
    store: SqliteStore, method: str, path: str, order: str
) -> None:
    nodes = ListedNodes([listed_node()])
    async with asked(store, nodes) as client:
        async with client.request(method, path) as answer:
            assert answer.status == 200
        [line] = store.audit(10)

    assert nodes.orders == [(order, "box")]
    assert (line.action, line.target) == (f"nodes {order}", "box")


async def test_an_order_about_no_node_is_refused_and_not_noted(
    store: SqliteStore,
) -> None:
    async with asked(store, ListedNodes()) as client:
        async with client.post("/-/nodes/x/drain") as answer:
            assert answer.status == 404
        assert store.audit(10) == []


@pytest.mark.parametrize("is_listed", [True, False])
async def test_a_removed_node_loses_its_key(
    store: SqliteStore, is_listed: bool
) -> None:
    nodes = ListedNodes([listed_node()] if is_listed else [])
    keys = KeysOfNodes({"box": NodeKey(NodeKeyId("k"), "box", b"")})
    async with (
        asked(store, nodes, keys) as client,
        client.delete("/-/nodes/box") as answer,
    ):
        told = await answer.json()

    assert told == {"removed": "box", "had_key": True}
    assert keys.keys == {}
    assert [(line.action, line.target) for line in keys.lines] == [("nodes rm", "box")]


async def test_no_web_page_gives_orders(store: SqliteStore) -> None:
    nodes = ListedNodes([listed_node()])
    page = {"Origin": "http://elsewhere.example"}
    async with (
        asked(store, nodes) as client,
        client.post("/-/nodes/box/drain", headers=page) as answer,
    ):
        assert answer.status == 403
    assert nodes.orders == []
