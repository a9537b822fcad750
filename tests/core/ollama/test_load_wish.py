"""The proxy's own load is the one that waiting requests need, and the only one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.core.ollama.load_wish import (
    LoadWish,
    LoadWishes,
    load_wish_of,
    loads_to_try,
)
from ollama_proxy.core.ollama.request_fields import read_fields
from ollama_proxy.core.ollama.routes import classify
from ollama_proxy.simulator.server import Manners
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, generate, running_proxy

WIDE = {"num_ctx": 8192, "temperature": 0.1}
NARROW = {"num_ctx": 2048, "num_gpu": 3}


def written(folder: Path) -> bytes:
    """Return all that was written into a folder."""
    return b"".join(file.read_bytes() for file in folder.iterdir())


def machine(*models: str, boot_s: float = 0.05) -> InProcessBackend:
    """Return a backend whose instances have these models, and room for one."""
    return InProcessBackend(Manners(max_loaded=1), models=models, boot_s=boot_s)


async def ask(
    proxy: RunningProxy, path: str = "/api/generate", **body: Any
) -> tuple[int, dict[str, Any]]:
    async with proxy.session.post(
        proxy.url + path, json=generate(stream=False) | body
    ) as answer:
        return answer.status, await answer.json(content_type=None)


async def retried(proxy: RunningProxy, path: str = "/api/generate", **body: Any) -> int:
    """Ask for what there is no instance for, and again once there is one."""
    status, _ = await ask(proxy, path, **body)
    assert status == 503
    await proxy.until(lambda: proxy.state == "ready")
    status, _ = await ask(proxy, path, **body)
    return status


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {}),
        ("/api/generate", {"options": WIDE}),
        ("/api/generate", {"options": {"num_ctx": 8192.0, "use_mmap": False}}),
        ("/api/generate", {"options": WIDE, "keep_alive": "1s"}),
        ("/api/generate", {"options": WIDE, "keep_alive": 0}),
        ("/api/generate", {"shift": False}),
        ("/api/chat", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/api/chat", {"options": NARROW, "messages": [{"role": "user"}]}),
        ("/api/embed", {"input": "hi", "options": {"num_batch": 64}}),
        ("/api/embeddings", {"options": {"num_thread": 2}}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/embeddings", {"input": "hi"}),
    ],
)
@pytest.mark.parametrize("configured", ["", "tiny"])
async def test_who_is_refused_and_asks_again_finds_the_model_as_it_is_wanted(
    tmp_path: Path, path: str, body: dict[str, Any], configured: str
) -> None:
    backend = machine("tiny", "other")
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_MODEL=configured
    ) as proxy:
        assert await retried(proxy, path, **body) == 200

        assert backend.simulator.store.loads == 1


@pytest.mark.parametrize("configured", ["", "tiny", "other"])
async def test_who_is_held_finds_the_model_as_it_is_wanted(
    tmp_path: Path, configured: str
) -> None:
    backend = machine("tiny", "other")
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_HOLD="9s", OLLAMA_MODEL=configured
    ) as proxy:
        status, _ = await ask(proxy, options=WIDE)

        assert status == 200
        assert backend.simulator.store.loads == 1


async def test_of_two_that_differ_the_newest_is_served_without_another_load(
    tmp_path: Path,
) -> None:
    backend = machine("tiny")
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await ask(proxy, options=WIDE)
        await ask(proxy, options=NARROW)
        await proxy.until(lambda: proxy.state == "ready")
        await ask(proxy, options=NARROW)
        after_the_newest = backend.simulator.store.loads
        await ask(proxy, options=WIDE)

        assert after_the_newest == 1
        assert backend.simulator.store.loads == 2


async def test_of_two_models_the_one_asked_for_last_is_loaded(tmp_path: Path) -> None:
    backend = machine("tiny", "other")
    async with running_proxy(tmp_path, backend=backend, OLLAMA_MODEL="tiny") as proxy:
        await ask(proxy, options=WIDE)
        assert await retried(proxy, model="other", options=NARROW) == 200

        assert backend.simulator.store.loads == 1


async def test_a_model_that_is_not_there_does_not_displace_one_that_is(
    tmp_path: Path,
) -> None:
    backend = machine("tiny")
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await ask(proxy, options=WIDE)
        await ask(proxy, model="nowhere")
        await proxy.until(lambda: proxy.state == "ready")
        await ask(proxy, options=WIDE)

        assert backend.simulator.store.loads == 1


async def test_what_was_wanted_of_one_instance_is_not_loaded_on_the_next(
    tmp_path: Path,
) -> None:
    backend = machine("tiny", "other")
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_IDLE_TIMEOUT="0.2s"
    ) as proxy:
        await retried(proxy, options=WIDE)
        await proxy.until(lambda: proxy.state == "cold")
        await proxy.wake()

        assert backend.simulator.store.loads == 0


async def test_what_was_wanted_before_a_stop_is_not_loaded_after_it(
    tmp_path: Path,
) -> None:
    backend = machine("tiny", "other", boot_s=0.2)
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await ask(proxy, options=WIDE)
        await proxy.stop()
        await proxy.wake()

        assert backend.simulator.store.loads == 0


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/api/delete", {"model": "tiny"}),
        ("POST", "/api/pull", {"model": "tiny", "stream": False}),
        ("POST", "/api/push", {"model": "tiny", "stream": False}),
    ],
)
async def test_nothing_is_loaded_for_a_request_that_only_handles_a_model(
    tmp_path: Path, method: str, path: str, body: dict[str, Any]
) -> None:
    backend = machine("tiny", "other")
    async with (
        running_proxy(tmp_path, backend=backend, OLLAMA_PROXY_HOLD="9s") as proxy,
        proxy.session.request(method, proxy.url + path, json=body) as answer,
    ):
        await answer.read()

        assert answer.status == 200
        assert backend.simulator.store.loads == 0


async def test_a_model_is_kept_as_long_as_its_client_wants(tmp_path: Path) -> None:
    backend = machine("tiny")
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await ask(proxy, keep_alive=-1)
        await proxy.until(lambda: proxy.state == "ready")
        (expires_at,) = backend.simulator.store.running().values()

        assert expires_at - backend.simulator.now() > 365 * 86400


async def test_what_is_wanted_is_written_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_proxy(tmp_path, backend=machine("tiny")) as proxy:
        await retried(proxy, options={"num_ctx": 77177}, keep_alive="77177s")
        status = await proxy.status()
    logged = "".join(capsys.readouterr())

    assert b"77177" not in written(tmp_path)
    assert "77177" not in logged + json.dumps(status)


@pytest.mark.parametrize(
    ("method", "path", "body", "wish"),
    [
        (
            "POST",
            "/api/generate",
            {"options": {"num_ctx": 1, "stop": ["secret"], "seed": 2, "main_gpu": 0}},
            LoadWish("m", b'{"main_gpu":0,"num_ctx":1}'),
        ),
        ("POST", "/api/chat", {"options": {"num_ctx": "8k"}}, LoadWish("m")),
        ("POST", "/api/chat", {"options": {"num_ctx": None}}, LoadWish("m")),
        ("POST", "/api/chat", {"options": {"num_ctx": 1e300}}, LoadWish("m")),
        ("POST", "/api/chat", {"options": {"num_ctx": [1]}}, LoadWish("m")),
        ("POST", "/api/chat", {"options": [1]}, LoadWish("m")),
        (
            "POST",
            "/api/chat",
            {"options": {"num_ctx": 9.7, "stop": "x" * 5000}},
            LoadWish("m", b'{"num_ctx":9}'),
        ),
        ("POST", "/api/chat", {"keep_alive": "1h"}, LoadWish("m", b"", b'"1h"')),
        ("POST", "/api/chat", {"keep_alive": -1}, LoadWish("m", b"", b"-1")),
        ("POST", "/api/chat", {"keep_alive": "soon"}, LoadWish("m")),
        ("POST", "/api/chat", {"keep_alive": "60s"}, LoadWish("m")),
        ("POST", "/api/chat", {"keep_alive": "9h" * 99}, LoadWish("m")),
        ("POST", "/api/chat", {"shift": True}, LoadWish("m", shift=True)),
        ("POST", "/api/chat", {"shift": 7}, LoadWish("m")),
        ("POST", "/api/embed", {"shift": True}, LoadWish("m", embeds=True)),
        ("POST", "/v1/embeddings", {}, LoadWish("m", embeds=True)),
        ("POST", "/v1/completions", {"options": {"num_ctx": 1}}, LoadWish("m")),
        ("POST", "/v1/messages", {"max_tokens": 9}, LoadWish("m")),
        ("POST", "/api/pull", {}, None),
        ("POST", "/api/create", {}, None),
        ("DELETE", "/api/delete", {}, None),
        ("POST", "/api/chat", {"model": ""}, None),
        ("POST", "/api/chat", {"model": "m" * 401}, None),
    ],
)
def test_what_a_request_needs_loaded(
    method: str, path: str, body: dict[str, Any], wish: LoadWish | None
) -> None:
    fields = read_fields(json.dumps({"model": "m"} | body).encode())

    assert load_wish_of(classify(method, path), fields) == wish


def test_a_load_asks_for_nothing_but_the_load() -> None:
    wide = LoadWish("m", b'{"num_ctx":1}', b'"1h"', shift=False)
    embeds = LoadWish("m", embeds=True)

    assert wide.body() == {
        "model": "m",
        "stream": False,
        "options": {"num_ctx": 1},
        "keep_alive": "1h",
        "shift": False,
    }
    assert embeds.body() == {"model": "m", "input": []}


def test_the_newest_of_few_wishes_wins() -> None:
    wishes = LoadWishes()
    for name in "abcde":
        wishes.add(LoadWish(name))
    wishes.add(LoadWish("B:latest", b'{"num_ctx":1}'))
    there = [f"{name}:latest" for name in "abcde"]

    assert wishes.newest(there) == LoadWish("B:latest", b'{"num_ctx":1}')
    assert wishes.newest(there[2:]) == LoadWish("e")
    assert wishes.newest(["a:latest"]) is None


@pytest.mark.parametrize(
    ("newest", "first", "tries"),
    [
        (None, None, []),
        (None, "a", [LoadWish("a")]),
        (LoadWish("a"), "a", [LoadWish("a")]),
        (LoadWish("a", b"{}"), "a", [LoadWish("a", b"{}"), LoadWish("a")]),
        (LoadWish("b"), "a", [LoadWish("b"), LoadWish("a")]),
        (LoadWish("b"), None, [LoadWish("b")]),
    ],
)
def test_a_load_that_fails_leaves_the_configured_one(
    newest: LoadWish | None, first: str | None, tries: Sequence[LoadWish]
) -> None:
    assert loads_to_try(newest, first) == tries
