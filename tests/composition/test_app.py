"""The application as aiohttp's own server runs it: what is wired, and to what."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.composition import PARTS, build_app
from ollama_proxy.config.loader import load_settings
from ollama_proxy.core.access.keys import Key, KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.access.work import Work
from ollama_proxy.gateway.permits import Permit
from ollama_proxy.store.sqlite.store import SqliteStore
from ollama_proxy.store.state_folder import STATE_FILE
from tests.fakes.instance import InProcessBackend
from tests.proxy import generate


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[web.Application]:
    settings = load_settings(
        {"OLLAMA_PROXY_STATE_DIR": str(tmp_path), "OLLAMA_PROXY_DRAIN_TIMEOUT": "0"}
    )
    store, backend = SqliteStore(settings.state_dir), InProcessBackend()
    yield build_app(
        settings,
        clock=SystemClock(),
        store=store,
        backends={settings.offers[0].name: backend},
        rng=random.Random(1),
    )
    await backend.aclose()
    store.close()


async def test_own_endpoints_and_those_of_ollama_are_served(
    app: web.Application, aiohttp_client: AiohttpClient
) -> None:
    client = await aiohttp_client(app)

    for path in ("/healthz", "/status", "/metrics", "/", "/api/version", "/api/tags"):
        async with client.get(path) as reply:
            assert reply.status == 200, path
    assert app[PARTS].pool.in_flight == 0


async def test_a_request_launches_an_instance_that_answers_the_next_one(
    app: web.Application, aiohttp_client: AiohttpClient
) -> None:
    client = await aiohttp_client(app)
    async with client.post("/api/generate", json=generate(stream=False)) as reply:
        assert reply.status == 503
    async with asyncio.timeout(30):
        while app[PARTS].pool.controllers[0].record.state.value != "ready":
            await asyncio.sleep(0.01)
    async with client.post("/api/generate", json=generate(stream=False)) as reply:
        assert reply.status == 200
        assert (await reply.json())["done"] is True


async def test_an_unknown_path_is_no_order(
    app: web.Application, aiohttp_client: AiohttpClient
) -> None:
    client = await aiohttp_client(app)

    async with client.post("/-/nothing") as reply:
        assert reply.status == 401
    assert app[PARTS].pool.controllers[0].record.state.value == "cold"


async def test_the_end_of_the_application_records_exactly_what_keys_used(
    app: web.Application, aiohttp_client: AiohttpClient, tmp_path: Path
) -> None:
    client = await aiohttp_client(app)
    gateway = app[PARTS].gateway
    key = Key(KeyId("0a1b2c3d"), "ci", b"", Rights(tokens_per_day=1000))
    permit = gateway.limits.admit(key, Work(RouteClass.CHAT, "m", 40, 2), 1.8e9)
    assert isinstance(permit, Permit)
    permit.settle(40, 1)
    await client.close()

    committed = sqlite3.connect(tmp_path / STATE_FILE).execute(
        "SELECT amount FROM commitment"
    )
    assert committed.fetchall() == [(41,)]
