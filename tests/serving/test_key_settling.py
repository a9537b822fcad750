"""What requests with keys use, counted at their end, on both servers."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.core.access.keys import KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.access.usage import BY_ALL, NO_MODEL, UsageRow
from ollama_proxy.serving.hold_policy import HoldPolicy
from ollama_proxy.simulator.server import Manners
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.fakes.callers import Callers, bearer
from tests.fakes.instance import InProcessBackend
from tests.fakes.raw_upstream import raw_upstream
from tests.fakes.raw_upstream import reply as reply_of
from tests.proxy import HAS_FAST_PATH, RunningProxy, running_proxy

KEY = bearer("laptop")
ALL = Rights(routes=frozenset(RouteClass))
SIZE = 9
PROMPT = "a" * 400
TINY = "tiny:latest"

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": PROMPT}]}
OPTIONS = {"options": {"num_predict": SIZE}}
NATIVE_CHAT = CHAT | OPTIONS
GENERATE = {"model": "tiny", "prompt": PROMPT} | OPTIONS
OPENAI = CHAT | {"max_tokens": SIZE}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
RESPONSES = {"model": "tiny", "input": PROMPT, "max_output_tokens": SIZE}

EXACT = [
    ("/api/chat", NATIVE_CHAT),
    ("/api/chat", NATIVE_CHAT | {"stream": False}),
    ("/api/generate", GENERATE),
    ("/api/generate", GENERATE | {"stream": False}),
    ("/v1/chat/completions", OPENAI),
    ("/v1/chat/completions", OPENAI | WITH_USAGE),
    ("/v1/completions", {"model": "tiny", "prompt": PROMPT, "max_tokens": SIZE}),
    ("/v1/responses", RESPONSES),
    ("/v1/responses", RESPONSES | {"stream": True}),
    ("/v1/messages", OPENAI),
    ("/v1/messages", OPENAI | {"stream": True}),
]
ESTIMATED = [
    ("/v1/chat/completions", OPENAI | {"stream": True}),
    (
        "/v1/completions",
        {"model": "tiny", "prompt": PROMPT, "max_tokens": SIZE, "stream": True},
    ),
]
VECTORS = [
    ("/api/embed", {"model": "tiny", "input": PROMPT}),
    ("/v1/embeddings", {"model": "tiny", "input": PROMPT}),
]

both_servers = pytest.mark.parametrize(
    "fast",
    [
        pytest.param(True, marks=pytest.mark.skipif(not HAS_FAST_PATH, reason="off")),
        False,
    ],
)


@contextlib.asynccontextmanager
async def metered(
    folder: Path,
    *,
    fast: bool = False,
    is_awake: bool = True,
    is_gateway: bool = False,
    hold: HoldPolicy | None = None,
    **manners: Any,
) -> AsyncIterator[tuple[RunningProxy, InProcessBackend]]:
    """Run a proxy whose callers have keys, in front of a simulator."""
    backend = InProcessBackend(Manners(**manners), is_gateway=is_gateway)
    async with running_proxy(
        folder,
        backend=backend,
        identify=Callers(laptop=ALL, phone=ALL),
        hold=hold,
        OLLAMA_PROXY_FAST_PATH=str(fast).lower(),
    ) as proxy:
        if is_awake:
            await proxy.wake()
        yield proxy, backend


async def ask(
    proxy: RunningProxy, path: str, body: object, **headers: str
) -> tuple[int, bytes]:
    async with proxy.session.post(
        f"{proxy.url}{path}", json=body, headers=KEY | headers
    ) as reply:
        return reply.status, await reply.read()


def rows(proxy: RunningProxy) -> list[UsageRow]:
    return proxy.parts.gateway.usage.usage(1, None, BY_ALL)


async def the_row(proxy: RunningProxy) -> UsageRow:
    """Return the only row: a request ends a moment after its answer."""
    await proxy.until(lambda: bool(rows(proxy)))
    (row,) = rows(proxy)
    assert row.seconds > 0.0
    assert (row.key_id, row.key_name) == (KeyId("00000000"), "laptop")
    return row


def figures(row: UsageRow) -> tuple[int, int, int, int]:
    return row.requests, row.prompt_tokens, row.output_tokens, row.estimated


@both_servers
@pytest.mark.parametrize(("path", "body"), EXACT)
async def test_each_protocols_own_figures_are_counted(
    tmp_path: Path, path: str, body: dict[str, Any], *, fast: bool
) -> None:
    async with metered(tmp_path, fast=fast) as (proxy, _):
        assert (await ask(proxy, path, body))[0] == 200
        row = await the_row(proxy)

    assert row.model == TINY
    assert figures(row) == (1, 1, SIZE, 0)


@both_servers
@pytest.mark.parametrize(("path", "body"), ESTIMATED)
async def test_a_stream_without_figures_is_estimated_and_asked_for_nothing(
    tmp_path: Path, path: str, body: dict[str, Any], *, fast: bool
) -> None:
    async with metered(tmp_path, fast=fast) as (proxy, _):
        _, answer = await ask(proxy, path, body)
        row = await the_row(proxy)

    prompt = row.prompt_tokens
    assert b"usage" not in answer
    assert 100 <= prompt <= 150
    assert figures(row) == (1, prompt, SIZE, prompt + SIZE)


@both_servers
@pytest.mark.parametrize(("path", "body"), VECTORS)
async def test_vectors_count_by_their_prompt(
    tmp_path: Path, path: str, body: dict[str, Any], *, fast: bool
) -> None:
    async with metered(tmp_path, fast=fast) as (proxy, _):
        await ask(proxy, path, body)
        row = await the_row(proxy)

    assert figures(row) == (1, 1, 0, 0)


async def test_the_former_route_of_vectors_has_no_figures(tmp_path: Path) -> None:
    async with metered(tmp_path) as (proxy, _):
        await ask(proxy, "/api/embeddings", {"model": "tiny", "prompt": PROMPT})
        row = await the_row(proxy)

    assert row.output_tokens == 0
    assert 100 <= row.prompt_tokens == row.estimated <= 150


@both_servers
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_a_stream_that_its_client_leaves_counts_as_far_as_it_came(
    tmp_path: Path, path: str, *, fast: bool
) -> None:
    body = CHAT | {"stream": True, "max_tokens": 1000, "options": {"num_predict": 1000}}
    async with metered(tmp_path, fast=fast, rate=50.0) as (proxy, _):
        async with proxy.session.post(
            f"{proxy.url}{path}", json=body, headers=KEY
        ) as reply:
            for _ in range(6):
                await reply.content.readany()
            reply.close()
        row = await the_row(proxy)

    assert row.requests == 1
    assert 3 <= row.output_tokens <= 40
    assert row.estimated == row.output_tokens + row.prompt_tokens
    assert row.seconds < 10.0


@both_servers
@pytest.mark.parametrize("name", ["reset-after", "end-after", "error-after"])
async def test_a_stream_that_breaks_off_counts_as_far_as_it_came(
    tmp_path: Path, name: str, *, fast: bool
) -> None:
    async with metered(tmp_path, fast=fast) as (proxy, _):
        fault = {"X-Simulator-Fault": f"{name}=5"}
        await ask(proxy, "/api/chat", NATIVE_CHAT, **fault)
        row = await the_row(proxy)

    assert row.output_tokens == 5
    assert row.estimated == 5 + row.prompt_tokens
    assert row.model == TINY


@both_servers
async def test_a_client_that_leaves_before_the_answer_had_its_prompt_read(
    tmp_path: Path, *, fast: bool
) -> None:
    async with metered(tmp_path, fast=fast, rate=0.5) as (proxy, _):
        timeout = aiohttp.ClientTimeout(total=0.3)
        with pytest.raises(TimeoutError):
            async with proxy.session.post(
                f"{proxy.url}/api/chat",
                json=NATIVE_CHAT | {"stream": False},
                headers=KEY,
                timeout=timeout,
            ):
                pass
        row = await the_row(proxy)

    assert row.output_tokens == 0
    assert 100 <= row.prompt_tokens == row.estimated <= 150


@both_servers
async def test_what_the_instance_refuses_is_a_request_without_tokens_or_model(
    tmp_path: Path, *, fast: bool
) -> None:
    async with metered(tmp_path, fast=fast) as (proxy, _):
        status, _ = await ask(proxy, "/api/chat", CHAT | {"model": "none:such"})
        row = await the_row(proxy)

    assert status == 404
    assert row.model == NO_MODEL
    assert figures(row) == (1, 0, 0, 0)


@both_servers
async def test_a_load_of_a_model_takes_no_tokens(tmp_path: Path, *, fast: bool) -> None:
    async with metered(tmp_path, fast=fast) as (proxy, _):
        await ask(proxy, "/api/generate", {"model": "tiny"})
        row = await the_row(proxy)

    assert figures(row) == (1, 0, 0, 0)
    assert row.model == TINY


async def test_a_change_of_models_is_a_request_without_tokens(tmp_path: Path) -> None:
    async with metered(tmp_path) as (proxy, _):
        copied = {"source": "tiny", "destination": "mine"}
        assert (await ask(proxy, "/api/copy", copied))[0] == 200
        assert (await ask(proxy, "/api/pull", {"model": "other"}))[0] == 200
        await proxy.until(lambda: sum(row.requests for row in rows(proxy)) == 2)
        used = [figures(row)[1:] for row in rows(proxy)]

    assert set(used) == {(0, 0, 0)}


@both_servers
async def test_reads_and_requests_without_a_key_are_not_counted(
    tmp_path: Path, *, fast: bool
) -> None:
    async with metered(tmp_path, fast=fast) as (proxy, _):
        for path in ("/api/tags", "/v1/models", "/api/version", "/status"):
            async with proxy.session.get(f"{proxy.url}{path}", headers=KEY) as reply:
                await reply.read()
        await ask(proxy, "/api/show", {"model": "tiny"})
        async with proxy.session.post(
            f"{proxy.url}/api/chat", json=NATIVE_CHAT
        ) as reply:
            await reply.read()
        await ask(proxy, "/api/chat", NATIVE_CHAT)
        await the_row(proxy)
        (row,) = rows(proxy)

    assert row.requests == 1


@both_servers
async def test_a_request_that_no_instance_saw_is_not_counted(
    tmp_path: Path, *, fast: bool
) -> None:
    async with metered(tmp_path, fast=fast, is_awake=False) as (proxy, backend):
        backend.boot_s = 5.0
        status, _ = await ask(proxy, "/api/chat", NATIVE_CHAT)
        await asyncio.sleep(0.05)
        assert status == 503
        assert rows(proxy) == []
        backend.boot_s = 0.0  # the end waits for a start that is under way


async def test_a_request_that_waited_counts_what_was_done_for_it(
    tmp_path: Path,
) -> None:
    async with metered(tmp_path, is_awake=False) as (proxy, _):
        status, answer = await ask(proxy, "/api/chat", NATIVE_CHAT, Prefer="wait=60")
        row = await the_row(proxy)

    assert status == 200
    assert figures(row) == (1, 1, SIZE, 0)
    told = json.loads(answer.splitlines()[-1])
    assert (told["prompt_eval_count"], told["eval_count"]) == (1, SIZE)


async def test_a_stream_that_heartbeats_began_is_counted_as_any_other(
    tmp_path: Path,
) -> None:
    beating = HoldPolicy(max_hold_s=60.0, silent_s=0.02, beat_s=0.02)
    async with metered(tmp_path, is_awake=False, hold=beating) as (proxy, backend):
        backend.boot_s = 0.3
        status, answer = await ask(proxy, "/api/chat", NATIVE_CHAT, Prefer="wait=60")
        row = await the_row(proxy)

    assert status == 200
    assert answer.startswith(b" "), answer  # a heartbeat
    assert figures(row) == (1, 1, SIZE, 0)


@both_servers
async def test_an_answer_that_passes_a_gateway_is_counted_as_any_other(
    tmp_path: Path, *, fast: bool
) -> None:
    async with metered(tmp_path, fast=fast, is_gateway=True) as (proxy, _):
        await ask(proxy, "/api/chat", NATIVE_CHAT)
        row = await the_row(proxy)

    assert figures(row) == (1, 1, SIZE, 0)


@both_servers
async def test_a_stream_that_the_end_of_the_proxy_cuts_is_on_record(
    tmp_path: Path, *, fast: bool
) -> None:
    body = CHAT | {"options": {"num_predict": 1000}}
    async with metered(tmp_path, fast=fast, rate=50.0) as (proxy, _):
        session = aiohttp.ClientSession()
        reply = await session.post(f"{proxy.url}/api/chat", json=body, headers=KEY)
        await reply.content.readany()
    await session.close()
    with contextlib.closing(SqliteStore(tmp_path)) as store:
        (row,) = store.usage("", None, BY_ALL)

    assert row.requests == 1
    assert row.output_tokens >= 1
    assert row.estimated == row.prompt_tokens + row.output_tokens


async def test_a_body_that_is_too_long_to_keep_is_counted_by_its_model(
    tmp_path: Path,
) -> None:
    picture = "a" * 3_000_000
    message = {"role": "user", "content": "look", "images": [picture]}
    body = {"model": "tiny", "messages": [message], "options": {"num_predict": SIZE}}
    sent = io.BytesIO(json.dumps(body).encode())
    async with metered(tmp_path) as (proxy, _):
        async with proxy.session.post(
            f"{proxy.url}/api/chat", data=sent, headers=KEY
        ) as reply:
            await reply.read()
        row = await the_row(proxy)

    assert row.model == TINY
    assert figures(row) == (1, 1, SIZE, 0)


@both_servers
async def test_a_sound_counts_by_its_words_and_its_form_names_the_model(
    tmp_path: Path, *, fast: bool
) -> None:
    form = aiohttp.FormData()
    form.add_field("model", "tiny")
    form.add_field("file", b"\0" * 50_000, filename="a.wav")
    async with metered(tmp_path, fast=fast) as (proxy, _):
        async with proxy.session.post(
            f"{proxy.url}/v1/audio/transcriptions", data=form, headers=KEY
        ) as reply:
            answer = await reply.read()
        row = await the_row(proxy)

    assert row.model == TINY
    assert figures(row) == (1, 1500, len(answer) // 4, 1500 + len(answer) // 4)


@both_servers
async def test_a_route_of_the_owners_own_counts_what_it_says_it_used(
    tmp_path: Path, *, fast: bool
) -> None:
    answer = b'{"results":[],"usage":{"prompt_tokens":26,"completion_tokens":2}}'

    async def script(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(1000)
        writer.write(reply_of(answer, b"Content-Type: application/json"))

    async with (
        raw_upstream(script) as upstream,
        running_proxy(
            tmp_path,
            backend=StaticBackend(upstream.url),
            identify=Callers(laptop=ALL),
            OLLAMA_PROXY_FAST_PATH=str(fast).lower(),
            OLLAMA_PROXY_EXTRA_ROUTES="POST /v1/rerank",
        ) as proxy,
    ):
        await proxy.wake()
        assert (await ask(proxy, "/v1/rerank", {"model": "rr"}))[0] == 200
        row = await the_row(proxy)

    assert row.model == "rr:latest"
    assert figures(row) == (1, 26, 2, 0)


async def test_two_keys_at_once_have_a_row_each_and_their_metrics(
    tmp_path: Path,
) -> None:
    async with metered(tmp_path) as (proxy, _):

        async def use(name: str, times: int) -> None:
            for _ in range(times):
                await ask(proxy, "/api/chat", NATIVE_CHAT, **bearer(name))

        await asyncio.gather(use("laptop", 3), use("phone", 2))
        await proxy.until(lambda: sum(row.requests for row in rows(proxy)) == 5)
        used = [(row.key_name, row.requests, row.output_tokens) for row in rows(proxy)]
        async with proxy.session.get(f"{proxy.url}/metrics") as reply:
            metrics = await reply.text()

    assert used == [("laptop", 3, 3 * SIZE), ("phone", 2, 2 * SIZE)]
    assert 'ollama_proxy_key_requests_total{key="laptop"} 3.0' in metrics
    assert 'ollama_proxy_key_tokens_total{key="phone",part="output"} 18.0' in metrics


async def test_usage_outlives_the_proxy(tmp_path: Path) -> None:
    async with metered(tmp_path) as (proxy, _):
        await ask(proxy, "/api/chat", NATIVE_CHAT)
        await the_row(proxy)
    async with metered(tmp_path, is_awake=False) as (proxy, _):
        await ask(proxy, "/api/tags", {})
        (row,) = rows(proxy)

    assert figures(row) == (1, 1, SIZE, 0)


async def test_many_requests_at_once_add_up(tmp_path: Path) -> None:
    async with metered(tmp_path, fast=HAS_FAST_PATH) as (proxy, _):
        bodies = [NATIVE_CHAT | {"options": {"num_predict": n}} for n in range(1, 101)]
        await asyncio.gather(*(ask(proxy, "/api/chat", body) for body in bodies))
        await proxy.until(lambda: sum(row.requests for row in rows(proxy)) == 100)
        (row,) = rows(proxy)

    assert figures(row) == (100, 100, 5050, 0)
