"""A whole proxy on real sockets, for tests."""

import asyncio
import contextlib
import json
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.base.clock import Clock, SystemClock
from ollama_proxy.base.parsers import Listen
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.composition import PARTS, Door, Parts, build_app, open_runner
from ollama_proxy.composition.listening import listen_on
from ollama_proxy.config.loader import load_settings
from ollama_proxy.core.access.hosts import HostPolicy
from ollama_proxy.core.access.keys import Key
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.fleet.backend import Backend
from ollama_proxy.gateway.order_token import OrderToken
from ollama_proxy.server.access import AccessRule, Identify
from ollama_proxy.server.binding import bind
from ollama_proxy.server.listener import Runner
from ollama_proxy.server.tls.watch import ServerCertificate
from ollama_proxy.serving.hold_policy import HoldPolicy
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.certificates import WALL, PrivateCa
from tests.fakes.instance import InProcessBackend
from tests.fakes.raw_upstream import RawUpstream, Script, raw_upstream

HAS_FAST_PATH = os.environ.get("OLLAMA_PROXY_FAST_PATH", "true") == "true"
"""Whether this run of the tests has a fast path: it may be turned off for all."""

needs_fast_path = pytest.mark.skipif(
    not HAS_FAST_PATH, reason="OLLAMA_PROXY_FAST_PATH turns off what this is about"
)

ORDER_TOKEN = f"opt_{'t' * 43}"
"""The order token of every proxy in the process of the tests."""

ORDERS = {"Authorization": f"Bearer {ORDER_TOKEN}"}
"""What the proxy's own commands send with an order."""

HURRIED = Timing(
    retry_pause_s=0.02,
    retry_pause_max_s=0.05,
    longest_sleep_s=0.05,
    probe_every_s=0.1,
)
"""Short pauses between repeated calls, for tests that run in real time."""


@dataclass(slots=True)
class RunningProxy:
    """A proxy that serves, its parts, and a client session to it."""

    url: str
    port: int
    parts: Parts
    session: aiohttp.ClientSession
    store: SqliteStore
    runner: Runner
    folder: Path
    hub_url: str = ""

    @property
    def state(self) -> str:
        return self.parts.pool.controllers[0].record.state.value

    @property
    def behind(self) -> int:
        """How many connections aiohttp's server has."""
        server = self.runner.server
        return len(server.connections) if server is not None else 0

    @property
    def catalogued(self) -> Snapshot | None:
        """An instance's answers about its models, as on disk."""
        query = "SELECT name FROM place ORDER BY written DESC"
        with contextlib.closing(sqlite3.connect(self.folder / "state.sqlite3")) as db:
            row = db.execute(query).fetchone()
        return self.store.place(row[0]).contents() if row is not None else None

    def tokens_of(self, key: Key) -> int:
        """What a key with a limit of tokens has used and reserved today."""
        tokens = self.parts.gateway.limits.tokens_of(key)
        assert tokens is not None
        return tokens

    async def status(self) -> dict[str, Any]:
        async with self.session.get(f"{self.url}/status") as reply:
            body: dict[str, Any] = await reply.json()
            return body

    async def node_token(self, *, is_tls: bool = False) -> str:
        """Have a hub make a token that a machine joins with."""
        url, wish = f"{self.url}/-/node-tokens", {"tls": is_tls}
        async with self.session.post(url, json=wish, headers=ORDERS) as made:
            return str((await made.json())["token"])

    async def until(
        self, condition: Callable[[], bool], within_s: float = 60.0
    ) -> None:
        """Wait until something is true, or fail; a busy machine may take long."""
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.005)

    async def wake(self) -> None:
        """Have a ready instance."""
        await self.parts.pool.wake()
        await self.until(lambda: self.state == "ready")

    async def stop(self) -> None:
        """Have no instance."""
        self.parts.pool.stop()
        await self.until(lambda: self.state == "cold")

    async def raw(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own; return all that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        try:
            async with asyncio.timeout(60.0):
                return await reader.read()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def running_proxy(
    folder: Path,
    *,
    backend: Backend | None = None,
    backends: Mapping[str, Backend] | None = None,
    file: Path | None = None,
    clock: Clock | None = None,
    hold: HoldPolicy | None = None,
    hosts: HostPolicy | None = None,
    is_local: bool = True,
    access_rules: Sequence[AccessRule] = (),
    identify: Identify | None = None,
    drain_timeout_s: float = 0.2,
    timing: Timing = STANDARD,
    tls: PrivateCa | None = None,
    **env: str,
) -> AsyncIterator[RunningProxy]:
    """Run a proxy with its state in ``folder``; ``env`` are settings.

    ``backend`` is that of the first offer, ``backends`` those of all; ``file`` has more
    settings. With ``tls`` it listens on TLS, by a certificate of that authority. A hub
    listens on a second port, ``hub_url``.
    """
    certificate = ServerCertificate(tls.files, WALL) if tls is not None else None
    settings = load_settings(
        {
            "OLLAMA_PROXY_STATE_DIR": str(folder),
            "OLLAMA_PROXY_DRAIN_TIMEOUT": "0",
            "OLLAMA_PROXY_FAST_PATH": str(HAS_FAST_PATH).lower(),
            **env,
        },
        file,
    )
    store = SqliteStore(settings.state_dir)
    if backends is None:
        chosen = backend if backend is not None else InProcessBackend()
        backends = {settings.offers[0].name: chosen}
    app = build_app(
        settings,
        clock=clock or SystemClock(),
        store=store,
        backends=backends,
        rng=random.Random(1),
        hold=hold,
        door=Door(hosts, is_local=is_local, order_token=OrderToken(ORDER_TOKEN)),
        access_rules=access_rules,
        identify=identify,
        timing=timing,
    )
    runner = open_runner(app, drain_timeout_s=drain_timeout_s)
    await runner.setup()
    bound = bind(Listen(host="127.0.0.1", port=0))
    second = None
    if settings.hub_address is not None:
        second = bind(Listen(host="127.0.0.1", port=0))
    await listen_on(
        runner,
        bound,
        second,
        certificate=certificate,
        hub=app[PARTS].hub,
        backlog=128,
    )
    port, scheme = bound.getsockname()[1], "http" if tls is None else "https"
    hub_url = ""
    if second is not None:
        hub_url = f"{scheme}://127.0.0.1:{second.getsockname()[1]}"
    connector = aiohttp.TCPConnector(ssl=True if tls is None else tls.trusting())
    async with aiohttp.ClientSession(
        auto_decompress=False, connector=connector
    ) as session:
        url = f"{scheme}://127.0.0.1:{port}"
        try:
            yield RunningProxy(
                url, port, app[PARTS], session, store, runner, folder, hub_url
            )
        finally:
            await runner.cleanup()
            for one in backends.values():
                await one.aclose()
            store.close()
            await asyncio.sleep(
                0.005
            )  # what was closed is gone a turn of the loop later


@contextlib.asynccontextmanager
async def relaying_proxy(
    folder: Path,
    script: Script,
    *,
    drain_timeout_s: float = 0.2,
    tls: PrivateCa | None = None,
    auth: str = "auto",
    stall: str = "10m",
) -> AsyncIterator[tuple[RawUpstream, RunningProxy]]:
    """Run a proxy before a ready instance that does what ``script`` says."""
    async with (
        raw_upstream(script) as upstream,
        running_proxy(
            folder,
            backend=StaticBackend(upstream.url),
            drain_timeout_s=drain_timeout_s,
            tls=tls,
            OLLAMA_PROXY_AUTH=auth,
            OLLAMA_PROXY_STALL_TIMEOUT=stall,
        ) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        yield upstream, proxy


def generate(**fields: Any) -> dict[str, Any]:
    """Return the body of a generate request."""
    return {"model": "tiny", "prompt": "hi", **fields}


def lines(body: bytes) -> list[dict[str, Any]]:
    """Return the objects of an NDJSON body."""
    return [json.loads(line) for line in body.splitlines() if line.strip()]
