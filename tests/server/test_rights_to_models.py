"""Keys that may use some models only: what is refused to them, and what is hidden."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ollama_proxy.core.access.keys import KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.access.usage import BY_ALL
from ollama_proxy.simulator.server import Manners
from tests.fakes.callers import WAYS, Callers, bearer, by_way
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, generate, running_proxy

MINE, OTHER = "tiny", "secret"
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
ASKING: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/api/generate", {"prompt": "hi"}),
    ("POST", "/api/chat", CHAT),
    ("POST", "/api/embed", {"input": "hi"}),
    ("POST", "/api/embeddings", {"prompt": "hi"}),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/completions", {"prompt": "hi"}),
    ("POST", "/v1/responses", {"input": "hi"}),
    ("POST", "/v1/messages", {**CHAT, "max_tokens": 5}),
    ("POST", "/v1/embeddings", {"input": "hi"}),
    ("POST", "/api/pull", {}),
    ("POST", "/api/push", {}),
    ("DELETE", "/api/delete", {}),
    ("POST", "/api/create", {"from": MINE}),
    ("POST", "/v1/rerank", {"query": "hi"}),
]
WORDS = "the key 'ci' may not use the model 'secret', but: tiny*"


@pytest.fixture
def backend() -> InProcessBackend:
    return InProcessBackend(Manners(), models=(MINE, OTHER))


@pytest.fixture
async def proxy(
    tmp_path: Path, backend: InProcessBackend
) -> AsyncIterator[RunningProxy]:
    """A proxy whose key ``ci`` may use the models that begin with ``tiny``."""
    rights = Rights(models=("tiny*",), routes=frozenset(RouteClass))
    async with running_proxy(
        tmp_path,
        backend=backend,
        identify=Callers(ci=rights),
        OLLAMA_PROXY_EXTRA_ROUTES="POST /v1/rerank",
        OLLAMA_MODEL=MINE,
    ) as running:
        yield running


async def ask(
    proxy: RunningProxy, method: str, path: str, body: Any = None, **fields: str
) -> tuple[int, bytes, Any]:
    async with proxy.session.request(
        method, f"{proxy.url}{path}", json=body, headers=fields
    ) as answer:
        return answer.status, await answer.read(), answer.headers


async def send(
    proxy: RunningProxy, path: str, body: bytes, **fields: str
) -> tuple[int, str]:
    sent = {"Content-Type": "application/json", **bearer("ci"), **fields}
    async with proxy.session.post(
        f"{proxy.url}{path}", data=io.BytesIO(body), headers=sent
    ) as answer:
        return answer.status, (await answer.read()).decode()


def in_flight(proxy: RunningProxy) -> int:
    return proxy.parts.gateway.limits.in_flight(KeyId("00000000"))


@WAYS
@pytest.mark.parametrize(("method", "path", "body"), ASKING)
async def test_a_hidden_model_is_refused_by_name_and_wakes_nothing(
    proxy: RunningProxy, way: str, method: str, path: str, body: dict[str, Any]
) -> None:
    named = {"model": OTHER, **body}
    status, told, fields = await ask(proxy, method, path, named, **by_way(way))

    assert status == 403
    assert WORDS in told.decode()
    assert fields["X-Ollama-Proxy"] == "right"
    assert proxy.state == "cold"
    assert in_flight(proxy) == 0
    await proxy.until(lambda: bool(proxy.parts.gateway.usage.usage(1, None, BY_ALL)))
    (row,) = proxy.parts.gateway.usage.usage(1, None, BY_ALL)
    assert (row.requests, row.refused) == (0, 1)


@WAYS
@pytest.mark.parametrize(("method", "path", "body"), ASKING[:9])
async def test_its_own_models_are_served(
    proxy: RunningProxy, way: str, method: str, path: str, body: dict[str, Any]
) -> None:
    await proxy.wake()
    status, told, _ = await ask(
        proxy, method, path, {"model": MINE, **body}, **by_way(way)
    )
    await proxy.until(lambda: in_flight(proxy) == 0)

    assert status == 200, told


@WAYS
async def test_one_of_its_own_wakes_an_instance(proxy: RunningProxy, way: str) -> None:
    fields = by_way(way, Prefer="wait=60")
    status, _, _ = await ask(proxy, "POST", "/api/generate", generate(), **fields)

    assert status == 200
    assert in_flight(proxy) == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/copy", {"source": OTHER, "destination": "tiny-2"}),
        ("/api/copy", {"source": MINE, "destination": OTHER}),
        ("/api/create", {"model": "tiny-2", "from": OTHER}),
        ("/api/create", {"model": OTHER, "from": MINE}),
        ("/api/create", {"name": OTHER, "from": MINE}),
        ("/api/pull", {"name": OTHER}),
    ],
)
async def test_both_names_of_a_change_are_judged(
    proxy: RunningProxy, path: str, body: dict[str, Any]
) -> None:
    status, told, _ = await ask(proxy, "POST", path, body, **bearer("ci"))

    assert status == 403
    assert WORDS in told.decode()


TWICE: list[bytes] = [
    b'{"model":"tiny","model":"secret","prompt":"hi"}',
    b'{"model":"tiny","MODEL":"secret","prompt":"hi"}',
    b'{"MODEL":"secret","model":"tiny","prompt":"hi"}',
    b'{"model":"tiny","prompt":"hi","mod\\u0065l":"secret"}',
    b'{"model":"secret","model":null,"prompt":"hi"}',
    b'{"prompt":"hi","options":{"model":"tiny"},"model":"secret"}',
    b'{"model":"secret","prompt":"hi"} {"model":"tiny"}',
    b'{"model":"registry.ollama.ai/library/SECRET:latest","prompt":"hi"}',
    b'{"model":"tiny://registry.ollama.ai/library/secret:latest","prompt":"hi"}',
    b'{"model":"tiny/x://registry.ollama.ai/library/secret","prompt":"hi"}',
    b'{"model":" secret:local ","prompt":"hi"}',
    b'{"model":"tiny","x":"' + b":" * 1_200_000 + b'","model":"secret","prompt":"hi"}',
]


@pytest.mark.parametrize("body", TWICE, ids=range(len(TWICE)))
@pytest.mark.parametrize("is_awake", [False, True])
async def test_the_model_that_the_instance_would_take_is_judged(
    proxy: RunningProxy, backend: InProcessBackend, body: bytes, is_awake: bool
) -> None:
    before = 0
    if is_awake:
        await proxy.wake()
        before = backend.simulator.counters.requests["/api/generate"]
    status, told = await send(proxy, "/api/generate", body)

    assert status == 403, told
    if is_awake:
        assert backend.simulator.counters.requests["/api/generate"] == before


async def test_a_long_body_in_chunks_is_judged_as_a_whole(proxy: RunningProxy) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"prompt":"'
        for _ in range(40):
            yield b"x" * 100_000
        yield b'","model":"secret"}'

    sent = {"Content-Type": "application/json", **bearer("ci")}
    url = f"{proxy.url}/api/generate"
    async with proxy.session.post(url, data=parts(), headers=sent) as answer:
        told = await answer.text()

    assert (answer.status, WORDS in told) == (403, True)


@pytest.mark.parametrize(
    ("body", "fields", "status", "words"),
    [
        (b"x" * (33 << 20), {}, 413, "longer than 32 MB"),
        (b"(packed)", {"Content-Encoding": "zstd"}, 415, "compressed (zstd)"),
        (b"(packed)", {"Content-Encoding": "gzip"}, 415, "compressed (gzip)"),
        (b"not JSON", {}, 400, "the model can't be read"),
        (b'["secret"]', {}, 400, "the model can't be read"),
        (b'{"model":["secret"]}', {}, 400, "no text"),
        (b"[" * 300_000, {}, 400, "the model can't be read"),
    ],
)
async def test_a_body_that_can_not_be_read_is_refused_in_words(
    proxy: RunningProxy, body: bytes, fields: dict[str, str], status: int, words: str
) -> None:
    answered, told = await send(proxy, "/v1/chat/completions", body, **fields)

    assert (answered, words in told) == (status, True), told
    assert proxy.state == "cold"
    assert in_flight(proxy) == 0


def form(model: str, *, boundary: str = "b1", before: str = "") -> bytes:
    sound = f'form-data; name="file"; filename="a.wav"\r\n\r\n{"x" * 1000}'
    parts = [sound, f'form-data; name="model"\r\n\r\n{model}']
    told = [f"--{boundary}\r\nContent-Disposition: {part}\r\n" for part in parts]
    return f"{before}{''.join(told)}--{boundary}--\r\n".encode()


FORMS: list[tuple[bytes, str, str, int]] = [
    (form(OTHER), "boundary=b1", "", 403),
    (form(MINE), "boundary=b1", "?model=secret", 403),
    (form(OTHER, before=form(MINE, boundary="b0").decode()), "boundary=b1", "", 400),
    (form(MINE) + form(OTHER), "boundary=b1", "", 400),
    (form(MINE).replace(b'"model"', b'"mod\\el"'), "boundary=b1", "", 400),
    (form(MINE), "boundary=b1; boundary=b2", "", 400),
    (form(MINE).replace(b"--b1--", b"--b1 \r\n--b1--"), "boundary=b1", "", 400),
    (form(OTHER).replace(b"\r\n", b"\n"), "boundary=b1", "", 400),
]


@pytest.mark.parametrize(("body", "kind", "query", "status"), FORMS)
async def test_the_model_of_a_sound_is_judged(
    proxy: RunningProxy, body: bytes, kind: str, query: str, status: int
) -> None:
    path = f"/v1/audio/transcriptions{query}"
    fields = {"Content-Type": f"multipart/form-data; {kind}"}
    answered, told = await send(proxy, path, body, **fields)

    assert answered == status, told
    assert proxy.state == "cold"


async def test_programs_forms_pass(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    await proxy.wake()
    data = aiohttp.FormData()
    data.add_field("file", b"RIFF" * 100, filename="ü.wav", content_type="audio/wav")
    data.add_field("model", MINE)
    url = f"{proxy.url}/v1/audio/transcriptions"
    async with proxy.session.post(url, data=data, headers=bearer("ci")) as answer:
        await answer.read()

    assert answer.status != 403
    assert backend.simulator.counters.requests["/v1/audio/transcriptions"] == 1


@WAYS
@pytest.mark.parametrize("is_awake", [False, True])
async def test_lists_show_what_the_key_may_use(
    proxy: RunningProxy, way: str, is_awake: bool
) -> None:
    await proxy.wake()
    load = {"model": OTHER, "prompt": "hi"}
    await ask(proxy, "POST", "/api/generate", load, **by_way(way, "nobody"))
    await ask(proxy, "POST", "/api/generate", generate(), **by_way(way, "nobody"))
    if not is_awake:
        await proxy.stop()
    seen = {}
    for who in ("ci", "nobody"):
        for path in ("/api/tags", "/v1/models", "/api/ps"):
            _, told, _ = await ask(proxy, "GET", path, **by_way(way, who))
            seen[who, path] = (MINE in told.decode(), OTHER in told.decode())
    everything = {path: seen["nobody", path] for path in ("/api/tags", "/v1/models")}

    assert all(not hidden for (who, _), (_, hidden) in seen.items() if who == "ci")
    assert seen["ci", "/api/tags"] == seen["ci", "/v1/models"] == (True, False)
    assert set(everything.values()) == {(True, True)}
    assert seen["ci", "/api/ps"] == (is_awake, False)


@WAYS
@pytest.mark.parametrize("is_awake", [False, True])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/show", {"model": "NAME"}),
        ("POST", "/api/show", {"name": "NAME"}),
        ("GET", "/v1/models/NAME", None),
    ],
)
async def test_a_hidden_model_is_not_there(
    proxy: RunningProxy, way: str, is_awake: bool, method: str, path: str, body: Any
) -> None:
    """Byte for byte as for everybody, of a model that is really not there."""
    await proxy.wake()
    if not is_awake:
        await proxy.stop()
    told = {}
    for who, name in (("nobody", "absent"), ("ci", OTHER), ("ci", MINE)):
        named = json.loads(json.dumps(body).replace("NAME", name))
        status, answer, fields = await ask(
            proxy, method, path.replace("NAME", name), named, **by_way(way, who)
        )
        names = {field.lower() for field in fields} - {"access-control-allow-origin"}
        told[name] = (
            status,
            answer.replace(name.encode(), b"*"),
            fields["Content-Type"],
            names - {"vary"},
        )

    assert told[OTHER] == told["absent"]
    assert (told[OTHER][0], told[MINE][0]) == (404, 200)


async def test_a_request_that_is_left_frees_its_place(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    backend.manners.rate = 5.0
    await proxy.wake()
    for _ in range(3):
        answer = await proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(), headers=bearer("ci")
        )
        await answer.content.readline()
        assert in_flight(proxy) == 1
        answer.close()
        await proxy.until(lambda: in_flight(proxy) == 0)


async def test_a_held_request_that_is_left_frees_its_place(
    proxy: RunningProxy, backend: InProcessBackend
) -> None:
    backend.boot_s = 30.0
    fields = {**bearer("ci"), "Prefer": "wait=60"}
    asking = asyncio.ensure_future(
        proxy.session.post(f"{proxy.url}/api/generate", json=generate(), headers=fields)
    )
    await proxy.until(lambda: in_flight(proxy) == 1)
    asking.cancel()
    await proxy.until(lambda: in_flight(proxy) == 0)
    backend.boot_s = 0.0
