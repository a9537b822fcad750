"""Two pools on real sockets: each request lands where its model is served."""

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.simulator.faults import Faults
from ollama_proxy.simulator.state import Manners
from tests.config.rig import toml
from tests.fakes.instance import InProcessBackend
from tests.pool_settings import TWO_POOLS
from tests.proxy import RunningProxy, needs_fast_path, running_proxy

NO_POOL_FOR_OTHERS = TWO_POOLS.replace('["*"]', '["small*"]')


@dataclass(slots=True)
class TwoPools:
    """A proxy with the pools ``big`` and ``small``, and the simulators behind it."""

    proxy: RunningProxy
    big: InProcessBackend
    small: InProcessBackend

    def state(self, pool: str) -> str:
        (controller,) = self.proxy.parts.pools[pool].pool.controllers
        return controller.record.state.value

    async def wake(self, *pools: str) -> None:
        for pool in pools:
            await self.proxy.parts.pools[pool].pool.wake()
        await self.proxy.until(lambda: all(self.state(p) == "ready" for p in pools))

    async def until(self, pool: str, state: str) -> None:
        await self.proxy.until(lambda: self.state(pool) == state)

    async def ask(
        self, path: str, body: Any = None, method: str = "", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, body and headers of an answer."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.proxy.session.request(
            method or ("GET" if body is None else "POST"),
            self.proxy.url + path,
            data=None if body is None else io.BytesIO(sent),
            headers={"Content-Type": "application/json", **given},
        ) as reply:
            text = await reply.read()
            is_json = reply.content_type == "application/json" and text.strip()
            told = json.loads(text) if is_json else text
            return reply.status, told, dict(reply.headers)


@pytest.fixture
async def pools(tmp_path: Path) -> AsyncIterator[TwoPools]:
    file = toml(tmp_path, NO_POOL_FOR_OTHERS)
    big = InProcessBackend(Manners(), models=["big:70b", "shared"])
    small = InProcessBackend(Manners(), models=["small:3b", "shared"])
    async with running_proxy(
        tmp_path / "state", file=file, backends={"one": big, "two": small}
    ) as proxy:
        yield TwoPools(proxy, big, small)


def generate(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "hi", "stream": False, **more}


async def test_a_request_wakes_the_pool_of_its_model_alone(pools: TwoPools) -> None:
    status, _, _ = await pools.ask("/api/generate", generate("small:3b"))

    assert status == 503
    await pools.proxy.until(lambda: pools.state("small") == "ready")
    assert (pools.state("big"), pools.big.launches) == ("cold", 0)


@pytest.mark.parametrize("is_long", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": "hi", "stream": False}),
        (
            "/api/chat",
            {"messages": [{"role": "user", "content": "hi"}], "stream": False},
        ),
        ("/api/embed", {"input": "hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/responses", {"input": "hi"}),
        (
            "/v1/messages",
            {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
        ),
    ],
)
async def test_each_way_of_asking_lands_on_the_instance_of_its_model(
    pools: TwoPools, path: str, body: dict[str, Any], *, is_long: bool
) -> None:
    await pools.wake("big", "small")
    filler = {"filler": "x" * 400_000} if is_long else {}
    for model, backend in (("big:70b", pools.big), ("small:3b", pools.small)):
        other = pools.small if backend is pools.big else pools.big
        before = asked(other, path)
        status, told, _ = await pools.ask(path, {**body, **filler, "model": model})

        assert status == 200, told
        assert asked(backend, path) > 0
        assert asked(other, path) == before


def asked(backend: InProcessBackend, path: str) -> int:
    """Return how many requests for a path an instance has had."""
    return backend.simulator.counters.requests.get(path, 0)


def names(body: dict[str, Any]) -> list[str]:
    """Return the models of a list, in either format."""
    entries = body.get("models") or body.get("data") or []
    return [entry.get("name") or entry["id"] for entry in entries]


@pytest.mark.parametrize("awake", [(), ("small",), ("big", "small")])
async def test_lists_have_each_model_once_from_its_own_pool(
    pools: TwoPools, awake: tuple[str, ...]
) -> None:
    await pools.wake("big", "small")
    known = [one.catalogue for one in pools.proxy.parts.pools]
    await pools.proxy.until(lambda: all(one.contents for one in known))
    for name in {"big", "small"} - {*awake}:
        pools.proxy.parts.pools[name].pool.stop()
        await pools.until(name, "cold")

    _, tags, headers = await pools.ask("/api/tags")
    _, models, _ = await pools.ask("/v1/models")

    status, nothing, told = await pools.ask("/api/tags", method="HEAD")
    assert (status, nothing) == (200, b"")
    assert int(told["Content-Length"]) > 100
    assert sorted(names(tags)) == ["big:70b", "small:3b"]  # `shared` is of no pool
    assert sorted(names(models)) == ["big:70b", "small:3b"]
    assert headers["X-Ollama-Proxy"] == ("merged" if awake else "asleep")
    assert {m["size"] for m in tags["models"]} != {0}  # as the instances list them


async def test_a_list_of_one_pool_is_asked_for_by_its_name(pools: TwoPools) -> None:
    await pools.wake("big", "small")

    for name, model in (("big", "big:70b"), ("small", "small:3b")):
        _, tags, _ = await pools.ask("/api/tags", X_Ollama_Proxy_Pool=name)
        assert {*names(tags)} == {model, "shared:latest"}

    status, told, _ = await pools.ask("/api/tags", X_Ollama_Proxy_Pool="none")
    assert (status, told) == (
        400,
        {"error": "no pool is named 'none'; there are big, small"},
    )


async def test_what_is_loaded_is_listed_of_every_instance(pools: TwoPools) -> None:
    _, told, _ = await pools.ask("/api/ps")
    assert told == {"models": []}
    await pools.wake("big", "small")
    for model in ("big:70b", "small:3b"):
        await pools.ask("/api/generate", generate(model))

    _, told, _ = await pools.ask("/api/ps")

    assert sorted(names(told)) == ["big:70b", "small:3b"]


async def test_an_instance_that_lists_nothing_leaves_the_others_listed(
    pools: TwoPools,
) -> None:
    await pools.wake("big", "small")
    await pools.proxy.until(
        lambda: pools.proxy.parts.pools["big"].catalogue.contents is not None
    )
    pools.big.manners.faults = Faults(status=500)

    _, tags, _ = await pools.ask("/api/tags")

    assert sorted(names(tags)) == ["big:70b", "small:3b"]  # what the pool remembers


async def test_a_model_is_shown_by_its_pool_awake_and_asleep(pools: TwoPools) -> None:
    await pools.wake("small")
    catalogue = pools.proxy.parts.pools["small"].catalogue
    await pools.proxy.until(lambda: catalogue.contents is not None)
    before = asked(pools.small, "/api/show")

    assert (await pools.ask("/api/show", {"model": "small:3b"}))[0] == 200
    assert asked(pools.small, "/api/show") == before + 1
    assert (await pools.ask("/api/show", {"model": "big:70b"}))[0] == 404  # yet unknown
    assert asked(pools.small, "/api/show") == before + 1
    assert (await pools.ask("/v1/models/small:3b"))[0] == 200
    assert pools.state("big") == "cold"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/generate", {"model": "other", "prompt": "hi"}, 404),
        ("/v1/chat/completions", {"model": "other", "messages": []}, 404),
        ("/v1/messages", {"model": "other", "messages": [], "max_tokens": 1}, 404),
        ("/api/show", {"model": "other"}, 404),
        ("/api/pull", {"model": "other"}, 400),
    ],
)
async def test_a_model_of_no_pool_wakes_nothing(
    pools: TwoPools, path: str, body: dict[str, Any], status: int
) -> None:
    got, told, _ = await pools.ask(path, body)

    assert got == status
    assert "big, small" in json.dumps(told)
    assert (pools.state("big"), pools.state("small")) == ("cold", "cold")


async def test_a_body_that_hides_its_model_is_refused_in_words(pools: TwoPools) -> None:
    await pools.wake("small")
    long = b'{"prompt":"' + b"a" * (33 << 20) + b'","model":"small:3b"}'

    status, told, _ = await pools.ask("/api/generate", long)

    assert status == 413
    assert "32 MB" in told["error"]
    assert pools.proxy.parts.pools.first.pool.in_flight == 0


async def test_a_long_body_passes_once_its_model_was_seen(pools: TwoPools) -> None:
    await pools.wake("small")
    long = b'{"model":"small:3b","stream":false,"prompt":"' + b"a" * (33 << 20) + b'"}'

    status, told, _ = await pools.ask("/api/generate", long)

    assert (status, told["model"]) == (200, "small:3b")


async def test_an_unknown_route_goes_to_the_pool_that_is_awake(pools: TwoPools) -> None:
    status, _, _ = await pools.ask("/nowhere")
    assert status == 404
    await pools.wake("small")

    await pools.ask("/nowhere")
    await pools.ask("/api/version")

    assert asked(pools.small, "/nowhere") == 1
    assert pools.state("big") == "cold"


GGUF = b"GGUF" + bytes(100)
DIGEST = f"sha256:{hashlib.sha256(GGUF).hexdigest()}"


async def upload(pools: TwoPools, **headers: str) -> int:
    """Send a file as `ollama create` does; return the status of the upload."""
    asked_for, _, _ = await pools.ask(f"/api/blobs/{DIGEST}", method="HEAD", **headers)
    assert asked_for == 404
    status, _, _ = await pools.ask(f"/api/blobs/{DIGEST}", GGUF, **headers)
    return status


async def test_a_model_is_created_where_its_file_was_sent(pools: TwoPools) -> None:
    await pools.wake("big", "small")
    assert await upload(pools) == 201
    assert (await pools.ask(f"/api/blobs/{DIGEST}", method="HEAD"))[0] == 200
    files = {"files": {"m.gguf": DIGEST}, "stream": False}

    status, told, _ = await pools.ask("/api/create", {"model": "small:mine", **files})

    assert (status, told["status"]) == (200, "success")
    assert asked(pools.small, "/api/create") == 1
    assert (await pools.ask("/api/generate", generate("small:mine")))[0] == 200


async def test_a_model_of_a_pool_without_the_file_is_refused(pools: TwoPools) -> None:
    await pools.wake("big", "small")
    await upload(pools)
    body = {"model": "big:mine", "files": {"m.gguf": DIGEST}}

    status, told, _ = await pools.ask("/api/create", body)

    assert status == 400
    assert all(word in told["error"] for word in ("'big'", "'small'", "uploads = true"))
    assert asked(pools.big, "/api/create") == 0


async def test_a_file_wakes_the_pool_that_takes_files(pools: TwoPools) -> None:
    assert await upload(pools) == 503
    await pools.proxy.until(lambda: pools.state("small") == "ready")
    assert pools.state("big") == "cold"


async def test_a_pull_and_a_deletion_are_of_the_pool_of_the_model(
    pools: TwoPools,
) -> None:
    await pools.wake("big", "small")
    body = {"model": "big:8b", "stream": False}

    assert (await pools.ask("/api/pull", body))[0] == 200
    assert (asked(pools.big, "/api/pull"), asked(pools.small, "/api/pull")) == (1, 0)
    assert (await pools.ask("/api/delete", {"model": "big:8b"}, "DELETE"))[0] == 200
    assert asked(pools.small, "/api/delete") == 0


async def test_a_copy_for_another_pool_is_refused(pools: TwoPools) -> None:
    await pools.wake("big", "small")
    body = {"source": "big:70b", "destination": "small:copy"}

    status, told, _ = await pools.ask("/api/copy", body)

    assert status == 400
    assert "'small:copy'" in told["error"]
    assert asked(pools.big, "/api/copy") == 0
    body["destination"] = "big:copy"
    assert (await pools.ask("/api/copy", body))[0] == 200


async def test_orders_mean_the_pool_that_they_name(pools: TwoPools) -> None:
    await pools.ask("/-/wake?pool=small", b"")
    await pools.proxy.until(lambda: pools.state("small") == "ready")
    assert pools.state("big") == "cold"
    await pools.ask("/-/wake", b"")
    await pools.proxy.until(lambda: pools.state("big") == "ready")

    await pools.ask("/-/stop?pool=small", b"")

    await pools.proxy.until(lambda: pools.state("small") == "cold")
    assert pools.state("big") == "ready"
    await pools.ask("/-/stop", b"")
    await pools.proxy.until(lambda: pools.state("big") == "cold")


@needs_fast_path
async def test_a_small_request_for_a_pool_stays_on_the_fast_path(
    pools: TwoPools,
) -> None:
    await pools.wake("big", "small")

    for model in ("big:70b", "small:3b"):
        assert (await pools.ask("/api/generate", generate(model)))[0] == 200

    assert pools.proxy.behind == 0


async def test_requests_for_two_pools_at_once_wake_both(pools: TwoPools) -> None:
    asking = [
        pools.ask("/api/generate", generate(model), Prefer="wait=60")
        for model in ("big:70b", "small:3b") * 4
    ]

    answers = await asyncio.gather(*asking)

    assert {status for status, _, _ in answers} == {200}
    assert (pools.big.launches, pools.small.launches) == (1, 1)


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0.01)


async def test_a_body_in_chunks_is_read_until_its_model_is_seen(
    pools: TwoPools,
) -> None:
    await pools.wake("big", "small")
    pieces = [
        b'{"prompt":"',
        b"a" * 300_000,
        b'","stream":false,"mo',
        b'del":"big:70b"}',
    ]

    async with pools.proxy.session.post(
        f"{pools.proxy.url}/api/generate", data=in_pieces(*pieces)
    ) as reply:
        assert (reply.status, (await reply.json())["model"]) == (200, "big:70b")

    assert asked(pools.small, "/api/generate") == 0


async def test_a_body_that_waits_to_be_invited_is_invited_for_its_model(
    pools: TwoPools,
) -> None:
    await pools.wake("small")
    body = json.dumps(generate("small:3b", filler="x" * 400_000)).encode()
    head = (
        b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Content-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", pools.proxy.port)
    writer.write(head)
    async with asyncio.timeout(30):
        assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        writer.write(body)
        answer = await reader.read()
    writer.close()

    assert b"HTTP/1.1 200 OK" in answer


@pytest.mark.parametrize("is_first", [False, True])
async def test_an_upload_of_speech_lands_where_its_form_says(
    pools: TwoPools, *, is_first: bool
) -> None:
    await pools.wake("big", "small")
    parts = [
        b'name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
        + bytes(500_000),
        b'name="model"\r\n\r\nbig:70b',
    ]
    body = b"".join(
        b"--XX\r\nContent-Disposition: form-data; " + part + b"\r\n"
        for part in (reversed(parts) if is_first else parts)
    )

    await pools.ask(
        "/v1/audio/transcriptions",
        body + b"--XX--\r\n",
        Content_Type="multipart/form-data; boundary=XX",
    )

    path = "/v1/audio/transcriptions"
    assert (asked(pools.big, path), asked(pools.small, path)) == (1, 0)


async def test_a_packed_body_is_refused_with_the_reason(pools: TwoPools) -> None:
    status, told, _ = await pools.ask(
        "/v1/chat/completions", b"(\xb5/\xfd...", Content_Encoding="zstd"
    )

    assert status == 415
    assert "zstd" in told["error"]["message"]
    assert (pools.state("big"), pools.state("small")) == ("cold", "cold")


async def test_a_large_file_is_passed_on_as_it_comes(pools: TwoPools) -> None:
    await pools.wake("small")
    data = bytes(40 << 20)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    assert (await pools.ask(f"/api/blobs/{digest}", data))[0] == 201
    assert pools.small.simulator.store.blobs[digest] == len(data)


async def test_a_refused_request_leaves_the_connection_usable(pools: TwoPools) -> None:
    await pools.wake("small")
    for _ in range(3):
        assert (await pools.ask("/api/generate", generate("other")))[0] == 404
        assert (await pools.ask("/api/generate", generate("small:3b")))[0] == 200


async def test_bodies_of_several_pools_are_given_back_to_the_budget(
    pools: TwoPools,
) -> None:
    await pools.wake("small")
    long = generate("small:3b", filler="x" * 2_000_000)
    for model in ("small:3b", "other", "big:70b"):
        await pools.ask("/api/generate", {**long, "model": model})

    assert pools.proxy.parts.budget.taken == 0
