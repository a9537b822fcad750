"""What keeps it awake: who asks now, for administrators alone."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.core.ollama.routes import classify
from ollama_proxy.serving.active_view import MOST
from ollama_proxy.serving.caller_fields import caller_fields
from ollama_proxy.serving.request_context import RequestContext
from ollama_proxy.simulator.server import Manners
from tests.fakes.instance import InProcessBackend
from tests.proxy import ORDER_TOKEN, RunningProxy, running_proxy
from tests.serving.test_active_requests import ENDLESS, SLOW, WAYS, asked

ADMIN = {"Authorization": f"Bearer {ORDER_TOKEN}"}
SECRET = "the secret of a prompt"


def agent_shown(agent: str) -> str:
    """Return how a User-Agent is shown."""
    route = classify("GET", "/api/version")
    nowhere: Any = None
    return caller_fields(RequestContext("GET", "/", agent, route, served=nowhere))[
        "agent"
    ]


async def status_of(proxy: RunningProxy, **headers: str) -> dict[str, Any]:
    async with proxy.session.get(f"{proxy.url}/status", headers=headers) as reply:
        body: dict[str, Any] = await reply.json()
        return body


@pytest.mark.parametrize("way", WAYS)
async def test_an_administrator_reads_who_asks_for_what_since_when(
    tmp_path: Path, way: str
) -> None:
    backend, body = InProcessBackend(SLOW), ENDLESS | {"prompt": SECRET}
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_FAST_PATH=way
    ) as proxy:
        await proxy.wake()
        agent = "User-Agent: monitor/1 " + "x" * 500
        async with asked(proxy, "/api/generate", body, agent) as reader:
            await reader.readline()
            told = await status_of(proxy, **ADMIN)
            (one,) = told["active"]
            request_id = one.pop("request_id")
            since_s, agent = one.pop("since_s"), one.pop("agent")
            assert one == {
                "client": "127.0.0.1",
                "key": None,
                "route": "/api/generate",
                "model": "tiny",
                "pool": "default",
                "state": "relaying",
            }
            assert request_id.startswith("req_")
            assert 0.0 <= since_s < 60.0
            assert agent.startswith("monitor/1")
            assert len(agent) == 120
            assert SECRET not in str(told)


@pytest.mark.parametrize("way", WAYS)
async def test_others_do_not_read_it(tmp_path: Path, way: str) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_FAST_PATH=way) as proxy:
        assert "active" not in await status_of(proxy)
        wrong = {"Authorization": f"Bearer {ORDER_TOKEN}x"}
        assert "active" not in await status_of(proxy, **wrong)
        assert (await status_of(proxy, **ADMIN))["active"] == []


async def test_a_request_that_waits_is_told_as_waiting(tmp_path: Path) -> None:
    async with (
        running_proxy(
            tmp_path, backend=InProcessBackend(Manners(load_s=60.0))
        ) as proxy,
        asked(proxy, "/api/generate", ENDLESS, "Prefer: wait=60"),
    ):
        await proxy.until(lambda: proxy.parts.pool.waiting > 0)
        (one,) = (await status_of(proxy, **ADMIN))["active"]
        assert (one["state"], one["model"]) == ("waiting", "tiny")


async def test_the_list_is_bounded_and_the_oldest_stay(tmp_path: Path) -> None:
    async with running_proxy(
        tmp_path, backend=InProcessBackend(Manners(load_s=60.0))
    ) as proxy:
        many = MOST + 20
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    proxy.raw(
                        b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n"
                        b"Prefer: wait=60\r\nConnection: close\r\n"
                        b'Content-Length: 16\r\n\r\n{"model":"tiny"}'
                    )
                )
                for _ in range(many)
            ]
            await proxy.until(lambda: len(proxy.parts.active) == many)
            told = await status_of(proxy, **ADMIN)
            for task in tasks:
                task.cancel()
        assert len(told["active"]) == MOST


@pytest.mark.parametrize("way", WAYS)
async def test_a_user_agent_that_is_no_text_breaks_no_status(
    tmp_path: Path, way: str
) -> None:
    raw = b'{"model":"\xff\xfe","options":{"num_predict":1000000}}'
    async with running_proxy(
        tmp_path, backend=InProcessBackend(SLOW), OLLAMA_PROXY_FAST_PATH=way
    ) as proxy:
        await proxy.wake()
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(
            b"POST /api/pull HTTP/1.1\r\nHost: localhost\r\n"
            b"User-Agent: a\xff\xc3\xa9\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(raw), raw[:-1])
        )
        await proxy.until(lambda: len(proxy.parts.active) == 1)
        (one,) = (await status_of(proxy, **ADMIN))["active"]
        assert one["agent"] == "a\\udcff\u00e9"
        writer.transport.abort()


def test_a_key_in_a_user_agent_is_hidden() -> None:
    text = "op_0123abcd_" + "x" * 43
    for agent in (
        text,
        f"curl/8 {text}",
        f"a({text})",
        "opt_" + "y" * 43,
        "x " * 58 + text,
    ):
        shown = agent_shown(agent)
        assert "x" * 5 not in shown
        assert "y" * 5 not in shown
    assert agent_shown("opera/9 op-ed/1") == "opera/9 op-ed/1"
