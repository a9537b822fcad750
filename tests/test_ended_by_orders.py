"""Orders that end a key, given to a whole proxy while answers are under way."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.serving.hold_policy import HoldPolicy
from tests.certificates import PrivateCa, private_ca
from tests.config.rig import toml
from tests.fakes.callers import Callers, bearer
from tests.fakes.endless_streams import EndlessStreams
from tests.fakes.raw_upstream import raw_upstream
from tests.proxy import ORDERS, RunningProxy, running_proxy
from tests.test_ended_keys import CHAT, RIGHTS, WITHIN_S, end

ORDERS_THAT_END = {
    "removed": ("DELETE", "/-/keys/x", {}),
    "disabled": ("PATCH", "/-/keys/x", {"disabled": True}),
    "replaced": ("POST", "/-/keys/x/rotate", {"grace": "0s"}),
}
WAYS = ["true", "false", "tls"]


@contextlib.asynccontextmanager
async def streaming(
    folder: Path, way: str
) -> AsyncIterator[tuple[RunningProxy, EndlessStreams]]:
    """Run a proxy before streams without an end; ``way``: how requests come in."""
    ca: PrivateCa | None = private_ca(folder / "tls") if way == "tls" else None
    script = EndlessStreams("application/x-ndjson", b'{"response":"#"}\n')
    async with (
        raw_upstream(script) as upstream,
        running_proxy(
            folder / "state",
            backend=StaticBackend(upstream.url),
            tls=ca,
            OLLAMA_PROXY_FAST_PATH="false" if way == "false" else "true",
        ) as proxy,
    ):
        await proxy.until(lambda: proxy.state == "ready")
        yield proxy, script


async def order(
    proxy: RunningProxy, method: str, path: str, body: Any, **headers: str
) -> Any:
    asked = proxy.session.request(
        method, f"{proxy.url}{path}", json=body, headers=headers or ORDERS
    )
    async with asked as reply:
        assert reply.status in {200, 201}
        return await reply.json()


async def add(proxy: RunningProxy, name: str, **terms: Any) -> str:
    """Make a key; return its text."""
    made = await order(proxy, "POST", "/-/keys?yes=1", {"name": name, **terms})
    return str(made["key"])


def chat(proxy: RunningProxy, key: str) -> Any:
    url = f"{proxy.url}/api/chat"
    return proxy.session.post(
        url, json=CHAT, headers={"Authorization": f"Bearer {key}"}
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", list(ORDERS_THAT_END))
async def test_an_order_ends_the_streams_of_its_key_alone(
    tmp_path: Path, way: str, how: str
) -> None:
    async with streaming(tmp_path, way) as (proxy, script):
        ended_key, other_key = await add(proxy, "x", parallel=1), await add(proxy, "y")
        async with (
            chat(proxy, ended_key) as ended,
            chat(proxy, other_key) as other,
        ):
            await ended.content.readline()
            method, path, body = ORDERS_THAT_END[how]
            async with asyncio.timeout(WITHIN_S):
                await order(proxy, method, path, body)
                rest = await ended.read()
            script.last = 60
            assert await other.read() == script.body()
        async with chat(proxy, ended_key) as refused:
            assert refused.status == 401
        await proxy.until(lambda: proxy.parts.pool.in_flight == 0)

    assert json.loads(rest.splitlines()[-1]) == {"error": f"the key 'x' was {how}"}


async def test_a_key_that_is_enabled_again_has_all_it_may_have_at_once(
    tmp_path: Path,
) -> None:
    async with streaming(tmp_path, "true") as (proxy, script):
        key = await add(proxy, "x", parallel=1)
        async with chat(proxy, key) as ended:
            await ended.content.readline()
            await order(proxy, "PATCH", "/-/keys/x", {"disabled": True})
            await ended.read()
        await order(proxy, "PATCH", "/-/keys/x", {"disabled": False})
        script.last = 3
        async with chat(proxy, key) as later:
            assert later.status == 200
            assert await later.read() == script.body()


async def test_answers_under_way_outlive_a_key_that_expires(tmp_path: Path) -> None:
    async with streaming(tmp_path, "true") as (proxy, script):
        await add(proxy, "y")
        key = await add(proxy, "x", expires="1s")
        async with chat(proxy, key) as outliving:
            await outliving.content.readline()
            await asyncio.sleep(1.2)
            async with chat(proxy, key) as refused:
                assert refused.status == 401
            await order(proxy, "PATCH", "/-/keys/x", {"priority": 1})
            script.last = 300
            rest = await outliving.read()

        assert script.body().endswith(rest)


async def test_a_key_that_removes_itself_is_answered_and_its_streams_end(
    tmp_path: Path,
) -> None:
    async with streaming(tmp_path, "true") as (proxy, _):
        key = await add(proxy, "x", routes="chat,admin")
        async with chat(proxy, key) as ended:
            await ended.content.readline()
            by_itself = {"Authorization": f"Bearer {key}"}
            told = await order(proxy, "DELETE", "/-/keys/x", {}, **by_itself)
            async with asyncio.timeout(WITHIN_S):
                rest = await ended.read()

        assert told["removed"]["name"] == "x"
        assert b"was removed" in rest


async def test_a_held_stream_ends_with_the_reason_between_two_attempts_as_well(
    tmp_path: Path,
) -> None:
    file = toml(tmp_path, '[offers.box]\nbackend = "static"\nslots = 1\n')
    script = EndlessStreams("application/x-ndjson", b'{"response":"#"}\n')
    async with contextlib.AsyncExitStack() as server, contextlib.AsyncExitStack() as up:
        upstream = await server.enter_async_context(raw_upstream(script))
        proxy = await up.enter_async_context(
            running_proxy(
                tmp_path / "state",
                file=file,
                backends={"box": StaticBackend(upstream.url)},
                hold=HoldPolicy(silent_s=0.05, beat_s=0.05),
                identify=Callers(x=RIGHTS),
                OLLAMA_PROXY_UPSTREAM_URL=upstream.url,
            )
        )
        await proxy.until(lambda: proxy.state == "ready")
        slot = proxy.parts.pool.try_lease()
        assert slot is not None
        headers = bearer("x") | {"Prefer": "wait=99"}
        url = f"{proxy.url}/api/chat"
        async with proxy.session.post(url, json=CHAT, headers=headers) as held:
            await held.content.readany()
            await server.aclose()
            slot.release()
            await proxy.until(lambda: proxy.parts.pool.in_flight == 0)
            end(proxy)  # while it waits for the next attempt
            async with asyncio.timeout(WITHIN_S):
                rest = await held.read()

        assert json.loads(rest) == {"error": "the key 'x' was removed"}
