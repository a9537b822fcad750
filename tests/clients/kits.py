"""The client libraries behind the same two calls: a stream, and a whole answer."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from tests.clients.late_import import LateImport

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

JS = Path(__file__).parents[1] / "js"
NODE = shutil.which("node") if (JS / "node_modules").is_dir() else None
"""Where Node is, if it is there and ollama-js is installed."""

Headers = Mapping[str, str]
HELLO: list[Any] = [{"role": "user", "content": "hello"}]


class Kit(Protocol):
    """One client library."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What it raises."""

    def stream(self, url: str, headers: Headers) -> AsyncGenerator[str, None]:
        """Yield the pieces of a streamed answer."""

    async def whole(self, url: str, headers: Headers) -> str:
        """Return an answer that comes at once."""


class OllamaKit:
    """Ollama's own for Python."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (ollama.ResponseError, httpx.HTTPError)

    async def stream(self, url: str, headers: Headers) -> AsyncGenerator[str, None]:
        async with ollama.AsyncClient(url, headers=dict(headers)) as client:
            async for part in await client.chat("tiny", HELLO, stream=True):
                yield part.message.content or ""

    async def whole(self, url: str, headers: Headers) -> str:
        async with ollama.AsyncClient(url, headers=dict(headers)) as client:
            return (await client.chat("tiny", HELLO)).message.content or ""


class LangChainKit:
    """LangChain's, which leaves it to others to close its connections."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (ollama.ResponseError, httpx.HTTPError)

    @contextlib.asynccontextmanager
    async def _chat(
        self, url: str, headers: Headers
    ) -> AsyncIterator["langchain_ollama.ChatOllama"]:
        async with httpx.AsyncHTTPTransport() as transport:
            yield langchain_ollama.ChatOllama(
                model="tiny",
                base_url=url,
                client_kwargs={"headers": dict(headers)},
                async_client_kwargs={"transport": transport},
            )

    async def stream(self, url: str, headers: Headers) -> AsyncGenerator[str, None]:
        async with self._chat(url, headers) as chat:
            async for part in chat.astream("hello"):
                yield str(part.content)

    async def whole(self, url: str, headers: Headers) -> str:
        async with self._chat(url, headers) as chat:
            return str((await chat.ainvoke("hello")).content)


class OpenAIKit:
    """OpenAI's, which repeats nothing here: a test wants to see the first answer."""

    def __init__(self, key: str = "x") -> None:
        self._key = key

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (openai.APIError, httpx.HTTPError)

    def _client(self, url: str, headers: Headers) -> "openai.AsyncOpenAI":
        return openai.AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key=self._key,
            max_retries=0,
            default_headers=headers,
        )

    async def stream(self, url: str, headers: Headers) -> AsyncGenerator[str, None]:
        async with self._client(url, headers) as client:
            stream = await client.chat.completions.create(
                model="tiny", messages=HELLO, stream=True
            )
            async for part in stream:
                yield part.choices[0].delta.content or ""

    async def whole(self, url: str, headers: Headers) -> str:
        async with self._client(url, headers) as client:
            answer = await client.chat.completions.create(model="tiny", messages=HELLO)
            return answer.choices[0].message.content or ""


class AnthropicKit:
    """Anthropic's, which repeats nothing here either."""

    def __init__(self, key: str = "x") -> None:
        self._key = key

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (anthropic.APIError, httpx.HTTPError)

    def _client(self, url: str, headers: Headers) -> "anthropic.AsyncAnthropic":
        return anthropic.AsyncAnthropic(
            base_url=url, api_key=self._key, max_retries=0, default_headers=headers
        )

    async def stream(self, url: str, headers: Headers) -> AsyncGenerator[str, None]:
        async with (
            self._client(url, headers) as client,
            client.messages.stream(
                model="tiny", max_tokens=99, messages=HELLO
            ) as stream,
        ):
            async for text in stream.text_stream:
                yield text

    async def whole(self, url: str, headers: Headers) -> str:
        async with self._client(url, headers) as client:
            answer = await client.messages.create(
                model="tiny", max_tokens=99, messages=HELLO
            )
            return "".join(b.text for b in answer.content if b.type == "text")


class JsError(Exception):
    """What ollama-js threw."""


class OllamaJsKit:
    """Ollama's own for JavaScript, in a Node process that ends with its call."""

    errors = (JsError,)

    async def lines(
        self, url: str, headers: Headers, what: str
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Run one call of ``client.mjs``; yield what it tells."""
        assert NODE is not None
        process = await asyncio.create_subprocess_exec(
            NODE,
            str(JS / "client.mjs"),
            url,
            json.dumps(dict(headers)),
            what,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                told = json.loads(line)
                if "error" in told:
                    raise JsError(told["error"])
                yield told
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def stream(self, url: str, headers: Headers) -> AsyncGenerator[str, None]:
        async for told in self.lines(url, headers, "stream"):
            yield told["said"]

    async def whole(self, url: str, headers: Headers) -> str:
        return "".join([t["said"] async for t in self.lines(url, headers, "whole")])


KITS: dict[str, Kit] = {
    "ollama": OllamaKit(),
    "langchain": LangChainKit(),
    "openai": OpenAIKit(),
    "anthropic": AnthropicKit(),
    "ollama-js": OllamaJsKit(),
}
