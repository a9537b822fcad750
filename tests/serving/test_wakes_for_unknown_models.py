"""Requests for a model that is not there: which start a machine."""

import asyncio
import json
import shutil
from asyncio import StreamReader, StreamWriter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.base.errors import CapacityError
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.core.ollama.model_fate import absence
from ollama_proxy.simulator.faults import Faults
from ollama_proxy.simulator.server import Manners
from tests.fakes.instance import InProcessBackend
from tests.fakes.ollama import real_ollama
from tests.fakes.raw_upstream import raw_upstream, reply
from tests.proxy import RunningProxy, relaying_proxy, running_proxy
from tests.virtual_time import SetClock

SAY = [{"role": "user", "content": "hi"}]
ASKED = [
    ("POST", "/api/generate", {"model": "Nope", "prompt": "hi"}),
    ("POST", "/api/generate", {"model": "Nope"}),
    ("POST", "/api/generate", {"model": "Nope", "keep_alive": 0}),
    ("POST", "/api/chat", {"model": "Nope", "messages": SAY}),
    ("POST", "/api/embed", {"model": "Nope", "input": "hi"}),
    ("POST", "/api/embeddings", {"model": "Nope", "prompt": "hi"}),
    ("POST", "/v1/chat/completions", {"model": "Nope", "messages": SAY}),
    ("POST", "/v1/completions", {"model": "Nope", "prompt": "hi"}),
    ("POST", "/v1/embeddings", {"model": "Nope", "input": "hi"}),
    ("POST", "/v1/responses", {"model": "Nope", "input": "hi"}),
    ("POST", "/v1/messages", {"model": "Nope", "max_tokens": 9, "messages": SAY}),
    ("POST", "/api/copy", {"source": "Nope", "destination": "b"}),
    ("DELETE", "/api/delete", {"model": "Nope"}),
    ("POST", "/api/push", {"model": "Nope"}),
]


async def ask(
    proxy: RunningProxy, method: str, path: str, body: object, **headers: str
) -> tuple[int, dict[str, object]]:
    async with proxy.session.request(
        method, proxy.url + path, json=body, headers=headers
    ) as answer:
        return answer.status, await answer.json(content_type=None)


async def chat(proxy: RunningProxy, model: str, **headers: str) -> int:
    body = {"model": model, "messages": SAY, "stream": False}
    return (await ask(proxy, "POST", "/api/chat", body, **headers))[0]


HELD: dict[str, Any] = {"OLLAMA_PROXY_HOLD": "20s", "OLLAMA_PROXY_BACKOFF": "0.1s"}


async def be_listed(proxy: RunningProxy) -> None:
    """Have an instance tell its models, and go."""
    await proxy.wake()
    await proxy.until(lambda: proxy.catalogued is not None)
    await proxy.stop()


def empty_disk(*models: str) -> InProcessBackend:
    backend = InProcessBackend(Manners(), models=models)
    backend.traits = replace(backend.traits, starts_empty=True)
    return backend


@pytest.mark.parametrize(("method", "path", "body"), ASKED)
@pytest.mark.parametrize("wait", ["", "5"])
async def test_where_every_disk_begins_empty_a_model_nobody_has_is_a_404_asleep(
    tmp_path: Path, method: str, path: str, body: object, wait: str
) -> None:
    backend = empty_disk("tiny")
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await be_listed(proxy)
        status, said = await ask(proxy, method, path, body, **headers)

        assert (status, proxy.state, backend.launches) == (404, "cold", 1)
    error = said["error"]
    message = error["message"] if isinstance(error, dict) else error
    assert message == absence(path, "Nope")
    assert ("type" in said) is (path == "/v1/messages")


async def test_what_is_listed_configured_or_pulled_wakes(tmp_path: Path) -> None:
    for model in ("TINY:latest", "wanted", "fetched"):
        async with running_proxy(
            tmp_path / model, backend=empty_disk("tiny"), OLLAMA_MODEL="wanted"
        ) as proxy:
            await proxy.wake()
            await ask(proxy, "POST", "/api/pull", {"model": "fetched", "stream": False})
            await proxy.stop()
            assert await chat(proxy, model) == 503
            assert proxy.state == "starting"


async def test_a_model_that_could_not_be_brought_back_is_tried_again(
    tmp_path: Path,
) -> None:
    backend = empty_disk("tiny")
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await proxy.wake()
        await ask(proxy, "POST", "/api/pull", {"model": "fetched", "stream": False})
        await proxy.stop()
        backend.manners = Manners(faults=Faults(error_after=0))
        await proxy.wake()
        lost = [model["model"] for model in (await proxy.status())["lost_models"]]
        await proxy.stop()
        backend.manners = Manners()
        await chat(proxy, "fetched")
        await proxy.until(lambda: proxy.state == "ready")

        assert (lost, await chat(proxy, "fetched")) == (["fetched:latest"], 200)


MADE = {"model": "made", "from": "tiny"}


async def test_what_was_created_on_a_disk_that_is_gone_wakes_nothing(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path, backend=empty_disk("tiny")) as proxy:
        await proxy.wake()
        await ask(proxy, "POST", "/api/create", {**MADE, "stream": False})
        await proxy.stop()
        await be_listed(proxy)

        assert await chat(proxy, "made") == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/pull", {"model": "nope"}),
        ("POST", "/api/create", {"model": "nope", "from": "tiny"}),
        ("POST", f"/api/blobs/sha256:{'0' * 64}", {}),
        ("POST", "/v1/audio/transcriptions", {"model": "nope"}),
    ],
)
async def test_what_brings_a_model_or_can_not_be_read_wakes_as_before(
    tmp_path: Path, method: str, path: str, body: object
) -> None:
    async with running_proxy(tmp_path, backend=empty_disk("tiny")) as proxy:
        await be_listed(proxy)

        assert (await ask(proxy, method, path, body))[0] == 503


async def test_a_body_that_is_compressed_wakes_as_before(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, backend=empty_disk("tiny")) as proxy:
        await be_listed(proxy)
        path, headers = "/v1/chat/completions", {"Content-Encoding": "zstd"}
        body = {"model": "nope", "messages": SAY}

        assert (await ask(proxy, "POST", path, body, **headers))[0] == 503


async def test_before_any_instance_everything_wakes(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, backend=empty_disk("tiny")) as proxy:
        assert await chat(proxy, "nope") == 503


async def test_where_models_are_kept_an_unknown_one_wakes_once(tmp_path: Path) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await be_listed(proxy)
        statuses = [await chat(proxy, "nope") for _ in range(20)]
        assert set(statuses) <= {503, 404}
        assert statuses[0] == 503
        await proxy.until(lambda: proxy.state == "ready")
        assert await chat(proxy, "nope") == 404
        await proxy.stop()
        assert await chat(proxy, "nope") == 404
        assert backend.launches == 2
    async with running_proxy(tmp_path, backend=backend) as proxy:
        assert await chat(proxy, "nope") == 404
        assert backend.launches == 2


async def test_a_model_that_somebody_put_there_after_the_404_wakes_again(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await proxy.wake()
        await proxy.until(lambda: proxy.catalogued is not None)
        assert await chat(proxy, "new") == 404
        backend.simulator.store.add("new")
        assert await chat(proxy, "new") == 200
        await proxy.stop()

        assert await chat(proxy, "new") == 503


async def test_whoever_does_not_come_back_has_woken_once_all_the_same(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await be_listed(proxy)
        assert await chat(proxy, "nope") == 503
        await proxy.until(lambda: proxy.state == "ready")
        lessons = proxy.store.place("local").lessons
        await proxy.until(lambda: lessons().absent == ["nope:latest"])
        await proxy.stop()

        assert await chat(proxy, "nope") == 404
    assert backend.launches == 2


@pytest.mark.parametrize("wait", ["0", "5"])
async def test_an_alias_that_an_instance_serves_goes_on_waking(
    tmp_path: Path, wait: str
) -> None:
    async def serve(_reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(reply(b'{"done":true}', b"Content-Type: application/json"))

    async with raw_upstream(serve) as upstream:
        backend = StaticBackend(upstream.url)
        backend.traits = replace(backend.traits, externally_managed=False)
        async with running_proxy(tmp_path, backend=backend) as proxy:
            await be_listed(proxy)
            for _ in range(5):
                asleep = await chat(proxy, "alias", Prefer=f"wait={wait}")
                await proxy.until(lambda: proxy.state == "ready")
                awake = await chat(proxy, "alias")
                await proxy.stop()

                assert (asleep, awake) == (503 if wait == "0" else 200, 200)


async def test_a_held_request_for_it_is_told_by_the_instance(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=0.1)
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await be_listed(proxy)
        assert await chat(proxy, "nope", Prefer="wait=5") == 404
        await proxy.stop()
        assert await chat(proxy, "nope", Prefer="wait=5") == 404

    assert backend.launches == 2


async def test_the_fourth_name_in_an_hour_is_told_when_it_is_looked_for(
    tmp_path: Path,
) -> None:
    backend, clock = InProcessBackend(), SetClock()
    async with running_proxy(tmp_path, backend=backend, clock=clock) as proxy:
        await be_listed(proxy)
        for number in range(3):
            assert await chat(proxy, f"nope{number}") == 503
            await proxy.until(lambda: proxy.state == "ready")
            await proxy.stop()
        body = {"model": "nope9", "messages": SAY}
        status, said = await ask(proxy, "POST", "/api/chat", body)

    assert status == 404
    assert said["error"] == (
        "model 'nope9' not found; no list names it yet, and it is looked for again"
        " in 60 min"
    )
    assert backend.launches == 4


@pytest.mark.parametrize(
    ("kind", "learnt"),
    [(b"application/json", ["nope:latest"]), (b"text/plain", [])],
)
@pytest.mark.parametrize("path", ["/v1/messages", "/api/copy"])
async def test_a_404_in_plain_text_is_of_the_route_and_not_of_the_model(
    tmp_path: Path, path: str, kind: bytes, learnt: list[str]
) -> None:
    async def refuse(_reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 404 Not Found\r\nContent-Type: %b\r\n"
            b"Content-Length: 2\r\n\r\n{}" % kind
        )

    async with relaying_proxy(tmp_path, refuse) as (upstream, proxy):
        body = {"model": "nope", "source": "nope", "messages": SAY}
        assert (await ask(proxy, "POST", path, body))[0] == 404
        lessons = proxy.store.place(f"local {upstream.url}").lessons()

    assert lessons.absent == learnt


@pytest.mark.parametrize(("rule", "status"), [("true", 503), ("false", 404)])
async def test_the_setting_decides_for_all_places(
    tmp_path: Path, rule: str, status: int
) -> None:
    for name, backend in (("a", empty_disk("tiny")), ("b", InProcessBackend())):
        async with running_proxy(
            tmp_path / name,
            backend=backend,
            OLLAMA_PROXY_WAKE_FOR_UNKNOWN_MODELS=rule,
        ) as proxy:
            await be_listed(proxy)

            assert await chat(proxy, "nope") == status


async def test_a_request_that_joins_a_launch_causes_no_other(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=0.2)
    async with running_proxy(tmp_path, backend=backend, **HELD) as proxy:
        await be_listed(proxy)
        known = asyncio.ensure_future(chat(proxy, "tiny"))
        await proxy.until(lambda: proxy.parts.pool.waiting == 1)
        joined = asyncio.ensure_future(chat(proxy, "nope"))
        await proxy.until(lambda: proxy.parts.pool.waiting == 2)
        assert await known == 200
        assert await joined == 404
        assert proxy.store.place("local").lessons().wakes == []
    assert backend.launches == 2


@pytest.mark.parametrize("backoff", ["0.1s", "60s"])
async def test_who_joined_a_launch_that_failed_is_told_and_causes_no_other(
    tmp_path: Path, backoff: str
) -> None:
    backend = InProcessBackend(boot_s=30.0)
    env = HELD | {"OLLAMA_PROXY_BACKOFF": backoff}
    async with running_proxy(tmp_path, backend=backend, **env) as proxy:
        proxy.store.place("local").put_contents(Snapshot(b'{"models":[]}', "0.33.0"))
    async with running_proxy(tmp_path, backend=backend, **env) as proxy:
        await proxy.parts.pool.wake()
        joined = asyncio.ensure_future(chat(proxy, "nope"))
        await proxy.until(lambda: proxy.parts.pool.waiting == 1)
        backend.start_error = CapacityError("no room")
        backend.boot_s = 0.0
        assert await asyncio.wait_for(joined, 3.0) == 503
        assert proxy.parts.pool.waiting == 0
        launches = backend.launches
        await asyncio.sleep(0.3)  # well past the back-off
    assert backend.launches == launches == 1


async def test_after_a_failed_launch_an_unknown_model_uses_none_of_its_wakes(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await be_listed(proxy)
        backend.start_error = CapacityError("no room")
        await proxy.parts.pool.wake()
        await proxy.until(lambda: proxy.state == "cool-down")
        for _ in range(5):
            assert await chat(proxy, "nope") == 503
        assert proxy.store.place("local").lessons().wakes == []


async def test_while_it_stops_an_unknown_model_counts_once(tmp_path: Path) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await be_listed(proxy)
        await proxy.wake()
        backend.boot_s = 1000.0  # so that the next one does not answer itself
        proxy.parts.pool.stop()
        assert proxy.state in {"draining", "stopping"}
        for _ in range(10):
            assert await chat(proxy, "nope") == 503
        lessons = proxy.store.place("local").lessons()
        backend.boot_s = 0.0

        assert len(lessons.wakes) == 1


@pytest.mark.real_ollama
@pytest.mark.skipif(shutil.which("ollama") is None, reason="there is no `ollama`")
async def test_asleep_a_model_is_as_absent_as_from_a_real_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "no-models"))
    names = ("Nope", "Nope:1B", "hf.co/User/Repo", "nope:local", "me/Nope:q4")
    async with (
        real_ollama() as url,
        running_proxy(tmp_path / "state", backend=empty_disk("tiny")) as proxy,
    ):
        await be_listed(proxy)
        real = replace(proxy, url=url)
        for method, path, fields in ASKED:
            if path == "/api/push":  # says so in a stream, with a path of its disk
                continue
            for name in names:
                body = json.loads(json.dumps(fields).replace("Nope", name))
                said = [await ask(one, method, path, body) for one in (proxy, real)]
                for _, answer in said:
                    answer.pop("request_id", None)

                assert said[0] == said[1], (path, name)
