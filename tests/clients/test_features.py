"""The official clients, through the proxy, from cold and without patience."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ollama_proxy.simulator.server import Manners
from tests.clients.kits import NODE, JsError, OllamaJsKit
from tests.clients.late_import import LateImport
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy

if TYPE_CHECKING:
    import anthropic
    import langchain_ollama
    import ollama
    import openai
else:
    anthropic = LateImport("anthropic")
    langchain_ollama = LateImport("langchain_ollama")
    ollama = LateImport("ollama")
    openai = LateImport("openai")

WAIT = {"Prefer": "wait=20"}
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
PICTURE: Any = {
    "role": "user",
    "content": [
        {"type": "text", "text": "what is this?"},
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64," + "A" * 2_000_000},
        },
    ],
}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "d",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {"city": {"type": "string"}},
        },
    },
}


ANTHROPIC_TOOL: Any = {
    "name": "weather",
    "description": "d",
    "input_schema": TOOL["function"]["parameters"],
}


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[RunningProxy]:
    backend = InProcessBackend(Manners(load_s=0.05), boot_s=0.1)
    async with running_proxy(tmp_path, backend=backend, OLLAMA_MODEL="tiny") as running:
        yield running


@pytest.fixture
async def client(proxy: RunningProxy) -> AsyncIterator["ollama.AsyncClient"]:
    """Ollama's client, willing to wait."""
    async with ollama.AsyncClient(proxy.url, headers=WAIT) as patient:
        yield patient


@pytest.fixture
async def hasty(proxy: RunningProxy) -> AsyncIterator["ollama.AsyncClient"]:
    """Ollama's client, as it comes."""
    async with ollama.AsyncClient(proxy.url) as impatient:
        yield impatient


async def test_ollama_async_from_cold(client: "ollama.AsyncClient") -> None:
    streamed = [
        part.response async for part in await client.generate("tiny", "hi", stream=True)
    ]
    whole = await client.generate("tiny", "hi")
    chat = await client.chat("tiny", HELLO)
    thought = await client.chat("tiny", HELLO, think=True)
    called = await client.chat("tiny", HELLO, tools=[TOOL])
    shaped = await client.chat("tiny", HELLO, format="json")
    seen = await client.chat("tiny", [{**HELLO[0], "images": [bytes(2_000_000)]}])
    embedded = await client.embed("tiny", ["a"] * 2000)

    assert "".join(part or "" for part in streamed) == whole.response
    assert "simulator" in (chat.message.content or "")
    assert thought.message.thinking
    assert (called.message.tool_calls or [])[0].function.name == "weather"
    assert json.loads(shaped.message.content or "") == {"simulated": True}
    assert "simulator" in (seen.message.content or "")
    assert len(embedded.embeddings) == 2000


async def test_ollama_manages_models(client: "ollama.AsyncClient") -> None:
    pulled = [part.status async for part in await client.pull("new", stream=True)]
    await client.create("mine", from_="new", system="be kind")
    await client.copy("mine", "yours")
    await client.delete("mine")
    listed = {model.model for model in (await client.list()).models}
    shown = await client.show("yours")
    running = await client.ps()

    assert pulled[0] == "pulling manifest"
    assert pulled[-1] == "success"
    assert listed == {"tiny:latest", "new:latest", "yours:latest"}
    assert shown.capabilities
    assert [model.model for model in running.models] == ["tiny:latest"]


async def test_ollama_sync_from_cold(proxy: RunningProxy) -> None:
    def use() -> None:
        with ollama.Client(proxy.url, headers=WAIT) as client:
            work(client)

    def work(client: "ollama.Client") -> None:
        parts = list(client.chat("tiny", HELLO, stream=True))
        assert parts[-1].done
        assert client.generate("tiny", "hi").response
        assert client.embed("tiny", "a").embeddings
        assert client.list().models
        assert client.show("tiny").modelinfo
        assert client.ps().models
        assert list(client.pull("new", stream=True))[-1].status == "success"
        assert client.create("mine", from_="tiny").status == "success"
        assert client.copy("mine", "yours").status == "success"
        assert client.delete("yours").status == "success"

    await asyncio.to_thread(use)


async def test_ollama_lists_and_shows_asleep_without_waking(
    proxy: RunningProxy, hasty: ollama.AsyncClient
) -> None:
    assert [m.model for m in (await hasty.list()).models] == ["tiny:latest"]
    assert (await hasty.show("tiny")).capabilities == ["completion"]
    assert (await hasty.ps()).models == []
    assert proxy.state == "cold"


async def test_ollama_is_told_that_it_is_provisioning(
    hasty: "ollama.AsyncClient",
) -> None:
    with pytest.raises(ollama.ResponseError, match="is starting") as caught:
        await hasty.generate("tiny", "hi")

    assert caught.value.status_code == 503


async def test_ollama_is_told_of_an_unknown_model(client: "ollama.AsyncClient") -> None:
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as caught:
        await client.generate("nope", "hi")

    assert caught.value.status_code == 404


async def test_openai_from_cold(proxy: RunningProxy) -> None:
    client = openai.AsyncOpenAI(
        base_url=f"{proxy.url}/v1", api_key="x", default_headers=WAIT
    )
    async with client:
        stream = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        said = "".join([c.choices[0].delta.content or "" async for c in stream])
        whole = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}]
        )
        completed = await client.completions.create(model="tiny", prompt="hi")
        embedded = await client.embeddings.create(model="tiny", input=["a"] * 2000)
        called = await client.chat.completions.create(
            model="tiny", messages=HELLO, tools=[TOOL]
        )
        shaped = await client.chat.completions.create(
            model="tiny", messages=HELLO, response_format={"type": "json_object"}
        )
        seen = await client.chat.completions.create(model="tiny", messages=[PICTURE])
        responded = await client.responses.create(model="tiny", input="hi")
        models = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("tiny")

    assert said == whole.choices[0].message.content
    assert completed.choices[0].text
    assert len(embedded.data) == 2000
    assert called.choices[0].message.tool_calls
    assert json.loads(shaped.choices[0].message.content or "") == {"simulated": True}
    assert "simulator" in (seen.choices[0].message.content or "")
    assert "simulator" in responded.output_text
    assert models == ["tiny:latest"]
    assert one.id == "tiny"


async def test_openai_is_told_that_it_is_provisioning(proxy: RunningProxy) -> None:
    client = openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="x", max_retries=0)
    async with client:
        with pytest.raises(openai.InternalServerError, match="is starting") as caught:
            await client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hi"}]
            )

    assert caught.value.status_code == 503
    assert caught.value.code == "provisioning"


async def test_anthropic_from_cold(proxy: RunningProxy) -> None:
    client = anthropic.AsyncAnthropic(
        base_url=proxy.url, api_key="x", default_headers=WAIT
    )
    async with client:
        async with client.messages.stream(
            model="tiny", max_tokens=20, messages=[{"role": "user", "content": "hi"}]
        ) as stream:
            said = "".join([text async for text in stream.text_stream])
        whole = await client.messages.create(
            model="tiny", max_tokens=20, messages=[{"role": "user", "content": "hi"}]
        )
        called = await client.messages.create(
            model="tiny", max_tokens=20, messages=HELLO, tools=[ANTHROPIC_TOOL]
        )
        thought = await client.messages.create(
            model="tiny",
            max_tokens=2000,
            messages=HELLO,
            thinking={"type": "enabled", "budget_tokens": 1024},
        )

    assert called.content[-1].type == "tool_use"
    assert thought.content[0].type == "thinking"
    assert whole.content[0].type == "text"
    assert said == whole.content[0].text
    assert whole.stop_reason == "end_turn"


async def test_anthropic_is_told_that_it_is_provisioning(proxy: RunningProxy) -> None:
    client = anthropic.AsyncAnthropic(base_url=proxy.url, api_key="x", max_retries=0)
    async with client:
        with pytest.raises(
            anthropic.InternalServerError, match="is starting"
        ) as caught:
            await client.messages.create(
                model="tiny",
                max_tokens=20,
                messages=[{"role": "user", "content": "hi"}],
            )

    assert caught.value.status_code == 503


async def test_langchain_from_cold(proxy: RunningProxy) -> None:
    kwargs: dict[str, Any] = {"client_kwargs": {"headers": WAIT}}
    async with httpx.AsyncHTTPTransport() as transport:
        kwargs["async_client_kwargs"] = {"transport": transport}
        chat = langchain_ollama.ChatOllama(model="tiny", base_url=proxy.url, **kwargs)
        thinking = langchain_ollama.ChatOllama(
            model="tiny", base_url=proxy.url, reasoning=True, **kwargs
        )
        shaping = langchain_ollama.ChatOllama(
            model="tiny", base_url=proxy.url, format="json", **kwargs
        )
        said = await chat.ainvoke("hello")
        called = await chat.bind_tools([TOOL]).ainvoke("hello")
        thought = await thinking.ainvoke("hello")
        shaped = await shaping.ainvoke("hello")
        embedding = langchain_ollama.OllamaEmbeddings(
            model="tiny", base_url=proxy.url, **kwargs
        )
        embedded = await embedding.aembed_documents(["a"] * 2000)
        with pytest.raises(ollama.ResponseError, match="not found"):
            await langchain_ollama.ChatOllama(
                model="nope", base_url=proxy.url, **kwargs
            ).ainvoke("hi")

    assert "simulator" in str(said.content)
    assert called.tool_calls[0]["name"] == "weather"
    assert thought.additional_kwargs["reasoning_content"]
    assert json.loads(str(shaped.content)) == {"simulated": True}
    assert len(embedded) == 2000


@pytest.mark.skipif(NODE is None, reason="no Node, or no `npm ci` in tests/js")
async def test_ollama_js_from_cold(proxy: RunningProxy) -> None:
    told = [line async for line in OllamaJsKit().lines(proxy.url, WAIT, "features")]

    assert told[0].pop("thinking")
    assert "simulator" in told[0].pop("seen")
    assert told[0].pop("capabilities")
    assert told == [
        {
            "tool": "weather",
            "shaped": {"simulated": True},
            "embeddings": 2000,
            "pulled": "success",
            "models": ["tiny:latest", "mine:latest"],
            "running": ["tiny:latest"],
        }
    ]


@pytest.mark.skipif(NODE is None, reason="no Node, or no `npm ci` in tests/js")
async def test_ollama_js_is_told_of_an_unknown_model(proxy: RunningProxy) -> None:
    with pytest.raises(JsError, match="model 'nope' not found"):
        await anext(OllamaJsKit().lines(proxy.url, WAIT, "unknown"))


@pytest.mark.skipif(NODE is None, reason="no Node, or no `npm ci` in tests/js")
async def test_ollama_js_cancels_by_its_own_means(proxy: RunningProxy) -> None:
    headers = WAIT | {"X-Simulator-Fault": "stall-after=3"}
    with pytest.raises(JsError, match="abort"):
        async for _ in OllamaJsKit().lines(proxy.url, headers, "cancel"):
            pass

    assert proxy.parts.pool.in_flight == 0
