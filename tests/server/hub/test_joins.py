"""Bodies of requests to join come from everybody, so few are read at a time."""

import asyncio
import contextlib
from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from ollama_proxy.core.nodes.join_request import join_body
from ollama_proxy.core.nodes.legacy_rule import LegacyMode, LegacyRule
from ollama_proxy.hub.beat_access import NodeAccess
from ollama_proxy.server.hub.joins import JoinRoutes
from tests.hub.rig import JoinRig


async def test_bodies_that_do_not_end_take_few_places_and_give_them_back(
    tmp_path: Path,
) -> None:
    rig = JoinRig(tmp_path)
    access = NodeAccess(rig.keyring, LegacyRule(LegacyMode.OFF), lambda: False)
    app = web.Application()
    app.add_routes(JoinRoutes(rig.joining, access, most_read=2).routes())
    body = join_body(rig.request(rig.token()))
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        url, halting = server.make_url("/nodes/join"), []
        for _ in range(2):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"POST /nodes/join HTTP/1.1\r\nHost: a\r\n")
            writer.write(b"Content-Length: 900\r\n\r\n{")
            halting.append((reader, writer))

        async with asyncio.timeout(20):
            while True:
                async with session.post(url, data=b"{}") as answer:
                    if answer.status == 503:
                        assert "send this one again" in await answer.text()
                        break
        for _, writer in halting:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

        async with asyncio.timeout(20):
            while True:
                async with session.post(url, data=body) as answer:
                    if answer.status == 200:
                        break
    assert rig.keyring.of_node("box") is not None
