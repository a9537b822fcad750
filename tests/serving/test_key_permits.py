"""What real keys use, settled with their limits: refusals, reservations, growth."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.base.tasks import cancel_and_wait, start_task
from ollama_proxy.core.access.keys import Rights
from ollama_proxy.core.access.usage import BY_ALL, NO_MODEL, UsageRow
from ollama_proxy.core.http.chunks import framed
from ollama_proxy.simulator.server import Manners
from tests.fakes.instance import InProcessBackend
from tests.fakes.keys import DISABLED, LINE, READER, UNKNOWN, MadeKey, make_key
from tests.fakes.raw_upstream import raw_upstream
from tests.proxy import RunningProxy, running_proxy
from tests.serving.test_key_settling import CHAT, NATIVE_CHAT, SIZE, TINY, both_servers

LIMITED = make_key(9, "limited", Rights(tokens_per_day=100_000))
ONE_A_MINUTE = make_key(10, "slow", Rights(rpm=1))
OF_OTHERS = make_key(11, "others", Rights(models=("other*",)))
LONG = CHAT | {"options": {"num_predict": 3000}}


@contextlib.asynccontextmanager
async def keyed(
    folder: Path, *made: MadeKey, fast: bool, url: str = "", **manners: Any
) -> AsyncIterator[RunningProxy]:
    """Run a proxy that has these keys, before a ready instance, or one at ``url``."""
    simulated = InProcessBackend(Manners(**manners))
    async with running_proxy(
        folder,
        backend=StaticBackend(url) if url else simulated,
        OLLAMA_PROXY_FAST_PATH=str(fast).lower(),
    ) as proxy:
        for one in made:
            proxy.parts.gateway.keyring.put(one.key, LINE)
        await proxy.wake()
        yield proxy


async def ask(proxy: RunningProxy, key: MadeKey, body: object = NATIVE_CHAT) -> int:
    async with proxy.session.post(
        f"{proxy.url}/api/chat", json=body, headers=key.bearer
    ) as reply:
        await reply.read()
        return reply.status


def rows(proxy: RunningProxy) -> list[UsageRow]:
    return proxy.parts.gateway.usage.usage(1, None, BY_ALL)


async def settled(proxy: RunningProxy, key: MadeKey) -> UsageRow:
    """Return the row of the one request that ended, once no permit is held."""
    limits = proxy.parts.gateway.limits
    await proxy.until(lambda: bool(rows(proxy)) and not limits.in_flight(key.key.id))
    (row,) = rows(proxy)
    return row


@both_servers
async def test_a_request_without_the_right_is_one_that_was_refused(
    tmp_path: Path, *, fast: bool
) -> None:
    async with keyed(tmp_path, READER, fast=fast) as proxy:
        for model in ("tiny", "evil1", "evil2"):
            assert await ask(proxy, READER, CHAT | {"model": model}) == 403
        (row,) = rows(proxy)

    assert (row.key_name, row.model) == ("reader", NO_MODEL)
    assert (row.refused, row.requests) == (3, 0)


@both_servers
async def test_a_model_that_a_key_may_not_use_is_one_that_was_refused(
    tmp_path: Path, *, fast: bool
) -> None:
    async with keyed(tmp_path, OF_OTHERS, fast=fast) as proxy:
        assert await ask(proxy, OF_OTHERS) == 403
        await proxy.until(lambda: bool(rows(proxy)))
        (row,) = rows(proxy)

    assert (row.key_name, row.model, row.refused) == ("others", NO_MODEL, 1)


@both_servers
async def test_a_limit_that_is_reached_refuses_for_the_model_that_is_used(
    tmp_path: Path, *, fast: bool
) -> None:
    async with keyed(tmp_path, ONE_A_MINUTE, fast=fast) as proxy:
        assert await ask(proxy, ONE_A_MINUTE) == 200
        await proxy.until(lambda: bool(rows(proxy)))
        assert await ask(proxy, ONE_A_MINUTE) == 429
        await proxy.until(lambda: sum(row.refused for row in rows(proxy)) == 1)
        used = rows(proxy)

    assert sum(row.requests for row in used) == 1
    assert {row.model for row in used} <= {TINY, NO_MODEL}  # a body may not be read


@both_servers
async def test_who_has_no_valid_key_is_counted_nowhere(
    tmp_path: Path, *, fast: bool
) -> None:
    async with keyed(tmp_path, READER, DISABLED, fast=fast) as proxy:
        assert await ask(proxy, UNKNOWN) == 401
        assert await ask(proxy, DISABLED) == 401
        assert rows(proxy) == []


@both_servers
async def test_the_permit_is_settled_with_the_figures_of_the_answer(
    tmp_path: Path, *, fast: bool
) -> None:
    async with keyed(tmp_path, LIMITED, fast=fast) as proxy:
        assert await ask(proxy, LIMITED) == 200
        row = await settled(proxy, LIMITED)
        used = proxy.tokens_of(LIMITED.key)

    assert (row.prompt_tokens, row.output_tokens) == (1, SIZE)
    assert used == 1 + SIZE


@both_servers
async def test_a_short_answer_at_once_counts_for_a_limit_as_soon_as_it_ends(
    tmp_path: Path, *, fast: bool
) -> None:
    async with keyed(tmp_path, LIMITED, fast=fast) as proxy:
        limits = proxy.parts.gateway.limits
        assert await ask(proxy, LIMITED, NATIVE_CHAT | {"stream": False}) == 200
        await proxy.until(lambda: not limits.in_flight(LIMITED.key.id))

        assert proxy.tokens_of(LIMITED.key) == 1 + SIZE


@both_servers
async def test_a_request_that_the_instance_refuses_gives_back_what_it_reserved(
    tmp_path: Path, *, fast: bool
) -> None:
    async with keyed(tmp_path, LIMITED, fast=fast) as proxy:
        assert await ask(proxy, LIMITED, CHAT | {"model": "none:such"}) == 404
        row = await settled(proxy, LIMITED)
        used = proxy.tokens_of(LIMITED.key)

    assert (row.requests, row.prompt_tokens, used) == (1, 0, 0)


@both_servers
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_is_settled_by_what_it_got(
    tmp_path: Path, *, fast: bool, stream: bool
) -> None:
    async with keyed(tmp_path, LIMITED, fast=fast, rate=50.0) as proxy:
        limits = proxy.parts.gateway.limits
        asking = start_task(ask(proxy, LIMITED, LONG | {"stream": stream}))
        await proxy.until(lambda: limits.in_flight(LIMITED.key.id) == 1)
        await asyncio.sleep(0.3)
        await cancel_and_wait(asking)
        row = await settled(proxy, LIMITED)
        used = proxy.tokens_of(LIMITED.key)

    assert used == row.prompt_tokens + row.output_tokens == row.estimated
    assert row.output_tokens < 1000


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Stream tokens for ever, whatever was asked for."""
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    while not reader.at_eof():
        writer.write(framed(b'{"message":{"content":"a"},"done":false}\n'))
        await writer.drain()
        await asyncio.sleep(0.0002)


@both_servers
async def test_a_stream_that_outgrows_its_reservation_enlarges_it_as_it_goes(
    tmp_path: Path, *, fast: bool
) -> None:
    async with (
        raw_upstream(endless) as upstream,
        keyed(tmp_path, LIMITED, fast=fast, url=upstream.url) as proxy,
    ):
        key = LIMITED.key
        asking = start_task(ask(proxy, LIMITED, CHAT))
        await proxy.until(lambda: proxy.tokens_of(key) > 0)
        reserved = proxy.tokens_of(key)
        await proxy.until(
            lambda: asking.done() or proxy.tokens_of(key) > reserved + 200
        )
        await cancel_and_wait(asking)
        row = await settled(proxy, LIMITED)
        used = proxy.tokens_of(key)

    assert reserved < 1000
    assert row.output_tokens > 512
    assert used == row.prompt_tokens + row.output_tokens
