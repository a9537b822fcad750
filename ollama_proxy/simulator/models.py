"""Keep the simulator's models: which exist, which are loaded, and for how long."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ollama_proxy.core.ollama.model_names import full_model_name

_FOR_EVER_S = 290 * 365 * 86400.0
_SIZE = 4_666_162
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_./:-]*[A-Za-z0-9_])?")


def is_model_name(text: str) -> bool:
    """Tell whether a model can have this name."""
    return _NAME.fullmatch(text) is not None


@dataclass(slots=True)
class Model:
    """Holds one model of the store."""

    name: str
    modified_at: float
    system: str = ""
    parent: str = ""

    @property
    def digest(self) -> str:
        """Return 64 hex characters, as Ollama gives them."""
        return hashlib.sha256(f"{self.name} {self.system}".encode()).hexdigest()

    @property
    def details(self) -> dict[str, Any]:
        """Return the ``details`` of tags, show and ps."""
        return {
            "parent_model": self.parent,
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "1.2B",
            "quantization_level": "Q4_K_M",
        }


@dataclass(slots=True)
class ModelStore:
    """Keeps models on disk and in memory. Moments are epoch seconds.

    ``loads``: number of completed loads; ``aborted_loads``: of those whose client left.
    ``max_loaded``: how many models are in memory at once; 0: no limit.
    """

    now: Callable[[], float]
    load_s: float = 0.0
    keep_alive_s: float = 300.0
    models: dict[str, Model] = field(default_factory=dict)
    loaded: dict[str, float] = field(default_factory=dict)
    loaded_with: dict[str, dict[str, Any]] = field(default_factory=dict)
    max_loaded: int = 0
    blobs: dict[str, int] = field(default_factory=dict)
    loads: int = 0
    aborted_loads: int = 0
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def add(self, name: str, *, system: str = "", parent: str = "") -> None:
        """Put a model into the store."""
        full = full_model_name(name)
        self.models[full] = Model(full, self.now(), system, parent)

    def get(self, name: str) -> Model | None:
        """Return a model by its name, with or without a tag."""
        return self.models.get(full_model_name(name))

    def remove(self, name: str) -> bool:
        """Remove a model; False if it is not there."""
        full = full_model_name(name)
        self.loaded.pop(full, None)
        return self.models.pop(full, None) is not None

    async def load(self, model: Model, runner: dict[str, Any]) -> None:
        """Load a model if it is not in memory; one at a time, as Ollama does.

        A model that is loaded with other ``runner`` options is loaded anew. If there is
        no room, the oldest one is unloaded. A client that leaves aborts the load.
        """
        async with self._loading:
            if model.name in self.running() and self.loaded_with[model.name] == runner:
                return
            self._make_room(model)
            try:
                await asyncio.sleep(self.load_s)
            except asyncio.CancelledError:
                self.aborted_loads += 1
                raise
            self.loads += 1
            self.loaded_with[model.name] = runner
            self.keep(model, None)

    def _make_room(self, model: Model) -> None:
        """Drop what a model to be loaded has no room beside."""
        self.loaded.pop(model.name, None)
        while self.max_loaded and len(self.loaded) >= self.max_loaded:
            self.loaded.pop(next(iter(self.loaded)))

    def keep(self, model: Model, keep_alive_s: float | None) -> None:
        """Keep a loaded model for a time; negative is for ever."""
        length_s = self.keep_alive_s if keep_alive_s is None else keep_alive_s
        self.loaded[model.name] = self.now() + (
            _FOR_EVER_S if length_s < 0 else length_s
        )

    def unload(self, model: Model) -> None:
        """Drop a model from memory."""
        self.loaded.pop(model.name, None)

    def running(self) -> dict[str, float]:
        """Return the loaded models and when each expires."""
        now = self.now()
        self.loaded = {name: at for name, at in self.loaded.items() if at > now}
        return self.loaded


def listed(model: Model) -> dict[str, Any]:
    """Return a model's entry in ``/api/tags``."""
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": go_time(model.modified_at),
        "size": _SIZE,
        "digest": model.digest,
        "details": model.details,
    }


def running(model: Model, expires_at: float, vram_share: float) -> dict[str, Any]:
    """Return a model's entry in ``/api/ps``."""
    return {
        "name": model.name,
        "model": model.name,
        "size": _SIZE,
        "digest": model.digest,
        "details": model.details,
        "expires_at": go_time(expires_at),
        "size_vram": int(_SIZE * vram_share),
        "context_length": 4096,
    }


def shown(model: Model) -> dict[str, Any]:
    """Return a model's body in ``/api/show``."""
    return {
        "license": "",
        "modelfile": f"FROM {model.name}\n",
        "parameters": "",
        "template": "{{ .Prompt }}",
        "system": model.system,
        "details": model.details,
        "model_info": {
            "general.architecture": "llama",
            "general.basename": model.name.partition(":")[0],
            "llama.context_length": 4096,
        },
        "capabilities": ["completion", "tools", "thinking"],
        "modified_at": go_time(model.modified_at),
    }


def go_time(moment: float) -> str:
    """Return epoch seconds as Go's JSON does, with nanoseconds."""
    stamp = datetime.fromtimestamp(moment, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{stamp.microsecond:06d}000Z"
