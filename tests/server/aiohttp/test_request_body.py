"""Bodies are kept within limits, and one budget for all."""

import asyncio
import io
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from ollama_proxy.server.aiohttp.request_body import RequestBody
from ollama_proxy.serving.body_budget import SMALL_BODY, BodyBudget
from tests.fakes.instance import InProcessBackend
from tests.proxy import generate, running_proxy


def test_a_budget_gives_what_is_left_and_no_more() -> None:
    budget = BodyBudget(10)

    assert budget.take(10)
    assert not budget.take(1)
    budget.give_back(4)
    assert budget.take(4)


@pytest.mark.parametrize(
    ("headers", "is_small"),
    [
        ({"Content-Length": str(SMALL_BODY)}, True),
        ({"Content-Length": str(SMALL_BODY + 1)}, False),
        ({"Transfer-Encoding": "chunked"}, False),
    ],
)
async def test_a_body_is_small_up_to_the_limit_and_if_its_length_is_known(
    headers: dict[str, str], *, is_small: bool
) -> None:
    request = make_mocked_request("POST", "/api/chat", headers=headers)
    body = RequestBody(request, BodyBudget(10), stall_s=1.0)

    assert body.is_small is is_small


async def test_a_body_beyond_the_budget_is_not_held(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=0.3)
    async with running_proxy(
        tmp_path,
        backend=backend,
        OLLAMA_PROXY_HOLD="9s",
        OLLAMA_PROXY_MAX_WAITING_BYTES="100k",
    ) as proxy:

        async def ask(size: int) -> int:
            prompt = "x" * size
            async with proxy.session.post(
                f"{proxy.url}/api/generate", json=generate(prompt=prompt)
            ) as reply:
                await reply.read()
                return reply.status

        first = asyncio.ensure_future(ask(60_000))
        await proxy.until(lambda: proxy.parts.pool.waiting == 1)

        assert await ask(60_000) == 503
        assert await first == 200
        assert await ask(60_000) == 200


async def test_an_invitation_is_sent_only_when_the_body_is_wanted(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        refused = await proxy.raw(
            b"POST /api/blobs/sha256:%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n" % (b"0" * 64)
        )
        await proxy.until(lambda: proxy.state == "ready")
        read = await proxy.raw(
            b"POST /api/show HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Expect: 100-continue\r\nContent-Length: 16\r\n\r\n" + b'{"model":"tiny"}'
        )

    assert refused.startswith(b"HTTP/1.1 503 ")
    assert read.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_a_large_held_body_arrives_whole(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=0.1)
    async with (
        running_proxy(tmp_path, backend=backend, OLLAMA_PROXY_HOLD="9s") as proxy,
        proxy.session.post(
            f"{proxy.url}/v1/audio/transcriptions", data=io.BytesIO(bytes(3 << 20))
        ) as reply,
    ):
        assert (await reply.json())["text"] == f"{3 << 20} simulated bytes"
