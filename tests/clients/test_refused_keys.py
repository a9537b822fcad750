"""What the official libraries show of a key that is refused, with their own defaults.

Only where a wait of up to a minute helps do they repeat a request by themselves.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ollama_proxy.core.access.keys import Caller
from tests.clients.kits import HELLO
from tests.clients.late_import import LateImport
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy

if TYPE_CHECKING:
    import anthropic
    import ollama
    import openai
else:
    anthropic = LateImport("anthropic")
    ollama = LateImport("ollama")
    openai = LateImport("openai")

A_MOMENT_S = 10.0  # less than the shortest Retry-After of two repetitions


async def by_ollama(url: str, key: str, model: str, retries: int) -> None:
    del retries  # it repeats nothing
    headers = {"Authorization": f"Bearer {key}"}
    async with ollama.AsyncClient(url, headers=headers) as client:
        await client.chat(model, HELLO)


async def by_openai(url: str, key: str, model: str, retries: int) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key=key, max_retries=retries
    ) as client:
        await client.chat.completions.create(model=model, messages=HELLO)


async def by_anthropic(url: str, key: str, model: str, retries: int) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=url, api_key=key, max_retries=retries
    ) as client:
        await client.messages.create(model=model, max_tokens=9, messages=HELLO)


Call = Callable[[str, str, str, int], Awaitable[None]]
CALLS: dict[str, Call] = {
    "ollama": by_ollama,
    "openai": by_openai,
    "anthropic": by_anthropic,
}
calls = pytest.mark.parametrize("library", CALLS)


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[RunningProxy]:
    backend = InProcessBackend(models=("tiny", "secret"))
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_AUTH="keys"
    ) as running:
        yield running


def key(proxy: RunningProxy, **words: object) -> str:
    """Make a key by the words of the command; return its text."""
    _, made = proxy.parts.gateway.changes.make({"name": "ci", **words}, Caller())
    return made


async def shown(
    proxy: RunningProxy,
    library: str,
    text: str,
    *,
    model: str = "tiny",
    retries: int = 2,
) -> str:
    """Return what a library raises, as its user sees it."""
    loop = asyncio.get_running_loop()
    begun_at = loop.time()
    with pytest.raises(Exception, match=r".") as caught:
        await CALLS[library](proxy.url, text, model, retries)
    assert loop.time() - begun_at < A_MOMENT_S
    return f"{type(caught.value).__name__}: {caught.value}"


@calls
async def test_a_wrong_key(proxy: RunningProxy, library: str) -> None:
    text = key(proxy)
    told = await shown(proxy, library, text[:-1] + ("a" if text[-1] != "a" else "b"))

    assert "key" in told
    assert "AuthenticationError" in told or "401" in told


@calls
async def test_a_model_that_the_key_may_not_use(
    proxy: RunningProxy, library: str
) -> None:
    text = key(proxy, models=["tiny*"])
    told = await shown(proxy, library, text, model="secret")

    assert "the key 'ci' may not use the model 'secret', but: tiny*" in told
    assert "PermissionDeniedError" in told or "403" in told
    assert proxy.state == "cold"


@calls
async def test_a_right_that_the_key_lacks(proxy: RunningProxy, library: str) -> None:
    told = await shown(proxy, library, key(proxy, routes=["embed", "read"]))

    assert "'chat'" in told
    assert "PermissionDeniedError" in told or "403" in told


@calls
async def test_a_key_that_may_not_wake(proxy: RunningProxy, library: str) -> None:
    told = await shown(proxy, library, key(proxy, no_wake=True))

    assert "no instance is up, and the key 'ci' may not start one" in told
    assert proxy.state == "cold"


@calls
async def test_a_limit_of_tokens(proxy: RunningProxy, library: str) -> None:
    await proxy.wake()
    text = key(proxy, tokens_per_day=1)
    await CALLS[library](proxy.url, text, "tiny", 2)
    told = await shown(proxy, library, text)

    assert "the key 'ci' may use 1 tokens a day" in told
    assert "RateLimitError" in told or "429" in told


@calls
async def test_a_limit_of_requests(proxy: RunningProxy, library: str) -> None:
    await proxy.wake()
    text = key(proxy, rpm=1)
    await CALLS[library](proxy.url, text, "tiny", 2)
    told = await shown(proxy, library, text, retries=0)

    assert "the key 'ci' may send 1 requests a minute" in told
    assert "RateLimitError" in told or "429" in told
