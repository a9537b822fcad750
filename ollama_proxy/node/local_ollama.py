"""Look at the machine's Ollama: its models, which are loaded, its version."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.core.nodes.beat_models import MOST_MODELS, is_name
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.node.listed_models import LoadedModel, Model, listed
from ollama_proxy.node.ready_body import ollama_request
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.endpoint import Upstream

_LARGEST = 8 << 20
_LOOK_S = 10.0
_AWAY_S = 5.0

T = TypeVar("T")


class _Tags(msgspec.Struct):
    models: list[dict[str, Any]] | None = None


class _Ps(msgspec.Struct):
    models: list[LoadedModel] | None = None


class _Version(msgspec.Struct):
    version: str = ""


@dataclass(frozen=True, slots=True)
class OllamaState:
    """Describes the machine's Ollama; ``fault``: why it has no models, a sentence."""

    models: tuple[Model, ...] = ()
    loaded: tuple[LoadedModel, ...] = ()
    version: str | None = None
    fault: str = ""

    def has_loaded(self, model: str) -> bool:
        """Tell whether a request for a model has to wait for no load."""
        name = full_model_name(model)
        return any(full_model_name(one.name) == name for one in self.loaded)


class LocalOllama:
    """Looks at the machine's Ollama, for at most ten seconds at a time.

    ``state``: what the last look saw.
    """

    def __init__(
        self, client: UpstreamClient, upstream: Upstream, *, look_s: float = _LOOK_S
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._look_s = look_s
        self.state = OllamaState()

    async def look(self) -> OllamaState:
        """Ask for the models; an Ollama that is away or slow has none, and a fault."""
        try:
            async with asyncio.timeout(self._look_s):
                self.state = await self._asked()
        except TimeoutError:
            self.state = self._without(f"did not answer within {self._look_s:g} s")
        except (UpstreamError, InstanceLostError) as error:
            self.state = self._without(f"can't be asked ({error})")
        except (msgspec.DecodeError, _StrangeError) as error:
            self.state = self._without(f"does not answer as Ollama does ({error})")
        return self.state

    async def watch(self, on_back: Callable[[], None]) -> None:
        """Look every 5 s at an Ollama that is away, until this is cancelled.

        ``on_back`` is called when it answers again, since beats are rarer.
        """
        while True:
            await asyncio.sleep(_AWAY_S)
            if self.state.fault and not (await self.look()).fault:
                on_back()

    async def _asked(self) -> OllamaState:
        tags = await self._read("/api/tags", _Tags)
        running = await self._read("/api/ps", _Ps)
        version = await self._read("/api/version", _Version)
        return OllamaState(
            listed(tags.models or []),
            tuple(one for one in running.models or [] if is_name(one.name))[
                :MOST_MODELS
            ],
            version.version or None,
        )

    def _without(self, why: str) -> OllamaState:
        return OllamaState(fault=f"the Ollama at {self._upstream.url} {why}")

    async def _read(self, path: str, kind: type[T]) -> T:
        answer = await self._client.ask(
            ollama_request("GET", path, None), self._upstream
        )
        async with answer:
            if answer.status != 200:  # noqa: PLR2004 - OK
                raise _StrangeError(f"{answer.status} for {path}")
            read = bytearray()
            async for chunk in answer.chunks():
                read += chunk
                if len(read) > _LARGEST:
                    raise _StrangeError(f"more than {_LARGEST >> 20} MiB for {path}")
        return msgspec.json.decode(read, type=kind)


class _StrangeError(Exception):
    """Reports an answer that is none of Ollama's."""
