"""What a hub answers to a beat, and what the agent makes of it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpServer

from ollama_proxy.node.hub_answer import HubAnswer, read_answer
from ollama_proxy.node.hub_client import HubAwayError, HubClient, HubRefusedError
from tests.node.test_heartbeat import FACTS
from tests.ports import held_port

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Hub = Callable[[Answer], Awaitable[HubClient]]


@pytest.fixture
async def hub(aiohttp_server: AiohttpServer) -> AsyncIterator[Hub]:
    async with aiohttp.ClientSession() as session:

        async def begin(answer: Answer) -> HubClient:
            app = web.Application()
            app.router.add_post("/nodes/heartbeat", answer)
            server = await aiohttp_server(app, shutdown_timeout=0.1)
            url = str(server.make_url("/nodes/heartbeat"))
            return HubClient(session, url, limit_s=0.5)

        yield begin


@pytest.mark.parametrize(
    ("body", "quoted"),
    [
        ('{"detail": "another node has\\nthis name"}', "another node has this name"),
        ('{"error": "no"}', "no"),
        ("<h1>no</h1>", "<h1>no</h1>"),
        ("", "nothing"),
        ("[" * 50_000, "["),
        ("x" * 1_000_000, "x" * 300),
    ],
    ids=["detail", "error", "page", "nothing", "nested", "long"],
)
async def test_a_refusal_is_quoted_on_one_short_line(
    hub: Hub, body: str, quoted: str
) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=409, text=body)

    with pytest.raises(HubRefusedError) as caught:
        await (await hub(refuse)).tell(FACTS)

    words = str(caught.value)
    taken = "another machine has this name; it answered 409:"
    assert words.startswith(f"{taken} {quoted}")
    assert len(words) < 400
    assert "\n" not in words


async def test_a_hub_that_fails_is_away(hub: Hub) -> None:
    async def fail(_request: web.Request) -> web.Response:
        return web.Response(status=502, text="Bad Gateway")

    with pytest.raises(HubAwayError, match="it answered 502: Bad Gateway"):
        await (await hub(fail)).tell(FACTS)


async def test_a_beat_follows_no_redirect(hub: Hub) -> None:
    async def redirect(_request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{held_port()}/")

    with pytest.raises(HubRefusedError, match="it answered 307"):
        await (await hub(redirect)).tell(FACTS)


async def test_a_slow_hub_is_away(hub: Hub) -> None:
    async def sleep(_request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    with pytest.raises(HubAwayError, match=r"no answer within 0\.5 s"):
        await (await hub(sleep)).tell(FACTS)


async def test_a_strict_hub_is_tried_with_all_keys_now_and_then(hub: Hub) -> None:
    seen = []

    async def strict(request: web.Request) -> web.Response:
        has_ours = "agent" in await request.json()
        seen.append(has_ours)
        return web.Response(status=422 if has_ours else 200)

    client = await hub(strict)
    for _ in range(41):
        await client.tell(FACTS)

    assert [number for number, has_ours in enumerate(seen) if has_ours] == [0, 21, 42]


async def test_a_hub_that_takes_no_shape_has_refused(hub: Hub) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=422, text='{"detail": "no"}')

    client = await hub(refuse)
    for _ in range(2):
        with pytest.raises(HubRefusedError, match="it answered 422: no"):
            await client.tell(FACTS)


@pytest.mark.parametrize(
    "body",
    [
        '{"status": "ok"}',
        "",
        "ok",
        "[1, 2]",
        "null",
        '{"next_beat_s": "soon", "drain": 1, "message": 7, "wanted_models": {"a": 1}}',
        '{"next_beat_s": NaN, "wanted_models": [7, "", "a\\nb", null]}',
        '{"next_beat_s": true}',
        "[" * 50_000,
        "\x00",
    ],
    ids=str,
)
async def test_a_hub_may_answer_in_any_shape(hub: Hub, body: str) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=body)

    assert await (await hub(answer)).tell(FACTS) == HubAnswer()


async def test_an_answer_that_comes_in_parts_is_read_whole(hub: Hub) -> None:
    body = {
        "status": "ok",
        "accepted": 1,
        "next_beat_s": 12.5,
        "wanted_models": [f"model{number}" for number in range(2000)],
        "drain": True,
        "message": "an update\x1b[2J\n is there",
    }

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        data = json.dumps(body).encode()
        for at in range(0, len(data), 10_000):
            await response.write(data[at : at + 10_000])
            await asyncio.sleep(0.001)
        return response

    read = await (await hub(answer)).tell(FACTS)

    assert (read.next_beat_s, read.is_drained) == (12.5, True)
    assert read.message == r"an update\x1b[2J is there"
    assert len(read.wanted) == 1000


@pytest.mark.parametrize(
    ("said", "obeyed"), [("0", 1.0), ("-5", 1.0), ("1e9", 3600.0), ("1" * 400, None)]
)
def test_the_time_to_the_next_beat_has_bounds(said: str, obeyed: float | None) -> None:
    assert read_answer(f'{{"next_beat_s": {said}}}').next_beat_s == obeyed


async def test_an_endless_answer_is_cut(hub: Hub) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" " * 65536)
        return response

    assert await (await hub(endless)).tell(FACTS) == HubAnswer()
