"""Choose the options of the proxy's own load of a model: those of waiting requests.

Ollama reloads a model if a request's runner options differ from those that it was
loaded with (``needsReload`` in ``server/sched.go``, v0.33). So a load with other
options would be wasted. Kept in memory only, and never a prompt.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec

from ollama_proxy.core.ollama.durations import go_duration_s
from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.ollama.request_fields import BodyFields
from ollama_proxy.core.ollama.routes import EMBEDDINGS, Kind, Route

_RUNNER_OPTIONS = frozenset(
    {
        "draft_num_predict",
        "f16_kv",
        "logits_all",
        "low_vram",
        "main_gpu",
        "num_batch",
        "num_ctx",
        "num_gpu",
        "num_thread",
        "numa",
        "use_mlock",
        "use_mmap",
        "vocab_only",
    }
)
"""``Runner`` in ``api/types.go``, with what it held in earlier versions."""

_WITH_OPTIONS = frozenset(
    {"/api/generate", "/api/chat", "/api/embed", "/api/embeddings"}
)
_SHIFTS = {b"true": True, b"false": False}
_MOST_WISHES = 4
_LONGEST_NAME = 400
_LONGEST_VALUE = 64
_LONGEST_OPTIONS = 64 * 1024
_SHORTEST_KEEP_ALIVE_S = 120.0
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class LoadWish:
    """Names a model, and how to load it: JSON as Ollama takes it, "" where unset.

    ``shift``: whether its context may be shifted, which Ollama decides at load time.
    ``embeds``: an embedding request loads it. At most 1 KB.
    """

    model: str
    options: bytes = b""
    keep_alive: bytes = b""
    shift: bool | None = None
    embeds: bool = False

    @property
    def is_plain(self) -> bool:
        """Tell whether it asks for nothing that a loaded model could lack."""
        return not self.options and self.shift is None

    @property
    def chooses_gpu(self) -> bool:
        """Tell whether it sets how much of the model belongs on the GPU."""
        return bool(self.options) and "num_gpu" in msgspec.json.decode(self.options)

    def body(self) -> dict[str, Any]:
        """Return the body of a request that loads the model and asks for no more."""
        nothing: dict[str, Any] = {"input": []} if self.embeds else {"stream": False}
        body = {"model": self.model, **nothing}
        if self.options:
            body["options"] = msgspec.json.decode(self.options)
        if self.keep_alive:
            body["keep_alive"] = msgspec.json.decode(self.keep_alive)
        if self.shift is not None:
            body["shift"] = self.shift
        return body


def load_wish_of(route: Route, fields: BodyFields) -> LoadWish | None:
    """Return what a request needs loaded; None if it needs no model in memory."""
    name = fields.model_name
    if route.kind is not Kind.INFERENCE or not name or len(name) > _LONGEST_NAME:
        return None
    embeds = route.name in EMBEDDINGS
    if route.name not in _WITH_OPTIONS:
        return LoadWish(name, embeds=embeds)
    return LoadWish(
        name,
        _runner_options(bytes(fields.options)),
        _long_keep_alive(bytes(fields.keep_alive)),
        None if embeds else _SHIFTS.get(bytes(fields.shift)),
        embeds=embeds,
    )


def _runner_options(raw: bytes) -> bytes:
    """Return the options that a model is loaded with, as a JSON object; "" if none."""
    if not raw or len(raw) > _LONGEST_OPTIONS:
        return b""
    try:
        given = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        chosen = {key: given[key] for key in sorted(_RUNNER_OPTIONS & given.keys())}
        values = {key: _number(bytes(value)) for key, value in chosen.items()}
    except UNREADABLE:
        return b""
    known = {key: value for key, value in values.items() if value is not None}
    return msgspec.json.encode(known) if known else b""


def _number(raw: bytes) -> int | None:
    """Return a number or truth value as Go takes it; None if it is none."""
    value = msgspec.json.decode(raw) if len(raw) <= _LONGEST_VALUE else None
    if isinstance(value, float) and abs(value) < _INT64:
        value = int(value)
    return value if isinstance(value, int) and abs(value) < _INT64 else None


def _long_keep_alive(raw: bytes) -> bytes:
    """Return how long to keep the model; "" if that is shorter than two minutes.

    A client retries up to a minute after its 503, and sends its value again. Zero would
    unload the model.
    """
    length_s = go_duration_s(raw) if len(raw) <= _LONGEST_VALUE else None
    if length_s is None or 0 <= length_s < _SHORTEST_KEEP_ALIVE_S:
        return b""
    return raw


def loads_to_try(newest: LoadWish | None, first: str | None) -> list[LoadWish]:
    """Return the loads of a launch; each is tried only if the one before it failed.

    ``newest``: of the waiting requests; it replaces the ``first`` configured model.
    """
    tries = [] if newest is None else [newest]
    if first is not None and newest != LoadWish(first):
        tries.append(LoadWish(first))
    return tries


class LoadWishes:
    """Holds the loads that the newest waiting requests need, by model; at most 4 KB."""

    def __init__(self) -> None:
        self._wishes: dict[str, LoadWish] = {}

    def add(self, wish: LoadWish) -> None:
        """Remember a wish as the newest; one for the same model is forgotten."""
        name = full_model_name(wish.model)
        self._wishes.pop(name, None)
        self._wishes[name] = wish
        if len(self._wishes) > _MOST_WISHES:
            del self._wishes[next(iter(self._wishes))]

    def newest(self, present: Collection[str]) -> LoadWish | None:
        """Return the newest wish for a model that is there, by its full name."""
        for name, wish in reversed(self._wishes.items()):
            if name in present:
                return wish
        return None

    def clear(self) -> None:
        """Forget them all: there is an instance, which is asked itself."""
        self._wishes.clear()

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return bool(self._wishes)
