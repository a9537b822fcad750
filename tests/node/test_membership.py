"""What asks the hub: its connection lasts from one beat to the next."""

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ollama_proxy.node.membership import KEPT_S, Membership, keyless_session
from ollama_proxy.node.settings import NodeSettings


async def test_a_connection_to_the_hub_outlasts_two_beats() -> None:
    interval_s = NodeSettings.model_fields["heartbeat_interval"].default
    async with keyless_session() as session:
        assert session.connector is not None
        kept_s = session.connector._keepalive_timeout

    assert kept_s == KEPT_S
    assert 2 * 1.1 * interval_s < KEPT_S


@pytest.mark.parametrize("is_keyed", [True, False])
async def test_a_hub_sends_a_node_to_no_other_server_and_leaves_no_cookie(
    is_keyed: bool,
) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.headers.get("Cookie")))
        fields = {"Set-Cookie": "a=b; Domain=localhost", "Location": "/elsewhere"}
        status = 307 if request.path == "/nodes/tunnel" else 200
        return web.Response(status=status, headers=fields)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    member = Membership("box", "opn_key", "ab" * 32, "cd" * 32)
    session = member.open_session() if is_keyed else keyless_session()
    async with TestServer(app, host="localhost") as server, session:
        with pytest.raises(aiohttp.ClientError, match="to another server"):
            await session.ws_connect(server.make_url("/nodes/tunnel"))
        async with session.get(server.make_url("/nodes")):
            pass

    assert asked == [("/nodes/tunnel", None), ("/nodes", None)]
