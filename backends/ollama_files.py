"""Read the models of an Ollama on this machine from its disk.

``<models>/manifests/<host>/<namespace>/<model>/<tag>`` is a manifest, whose layers are
files in ``<models>/blobs`` (``manifest/`` in Ollama's sources, v0.33).
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from ollama_proxy.backends.gguf import Head, read_head
from ollama_proxy.core.ollama.model_refs import HOST, MODEL, NAMESPACE

UNREADABLE = (OSError, ValueError, OverflowError, RecursionError)
"""Exceptions that reading a broken or missing file may raise."""

_TEXT_BYTES = 4 * 1024 * 1024
_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})\Z")
_MEDIA = "application/vnd.ollama.image."


def models_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of the models of an ``ollama serve`` in this environment.

    As ``Models`` and ``Var`` in ``envconfig/config.go`` do.
    """
    named = environment.get("OLLAMA_MODELS", "").strip().strip("\"'")
    # Path.expanduser raises for a user without a home, as many containers have.
    home = os.path.expanduser("~")  # noqa: PTH111
    return Path(named) if named else Path(home, ".ollama", "models")


class Layer(msgspec.Struct, rename="camel"):
    """Describes one file of a model; ``origin``: the model that it was taken from."""

    digest: str = ""
    size: int = 0
    media_type: str = ""
    origin: str = msgspec.field(name="from", default="")

    @property
    def kind(self) -> str:
        """Return its kind: ``model``, ``template`` or ``params``."""
        return self.media_type.removeprefix(_MEDIA)


class Manifest(msgspec.Struct):
    """Lists the files of a model."""

    config: Layer = msgspec.field(default_factory=Layer)
    layers: list[Layer] | None = None


class Config(msgspec.Struct):
    """Holds the part of a model's configuration that is shown."""

    model_format: str = ""
    model_family: str = ""
    model_families: list[str] | None = None
    model_type: str = ""
    file_type: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""
    capabilities: list[str] | None = None
    context_length: int = 0
    embedding_length: int = 0


class StoredModel(NamedTuple):
    """Describes one model on the disk, by its manifest and configuration."""

    name: str
    digest: str
    modified_ns: int
    layers: list[Layer]
    config: Config
    size: int

    def of_kind(self, *kinds: str) -> list[Layer]:
        """Return the layers of some kinds, in their order."""
        return [layer for layer in self.layers if layer.kind in kinds]


class ManifestFile(NamedTuple):
    """Says where a manifest lies; ``state`` changes whenever the file does."""

    path: str
    name: str
    state: tuple[int, int, int]


class ModelFiles:
    """Reads the files in a folder of models."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def manifests(self) -> Iterator[ManifestFile]:
        """Yield every manifest by name; raises `OSError` if none can be looked at."""
        folder = str(self._folder / "manifests")
        for host in _names(folder, HOST):
            for namespace in _names_below(f"{folder}/{host}", NAMESPACE):
                of_one = f"{folder}/{host}/{namespace}"
                for model in _names_below(of_one, MODEL):
                    for tag in _names_below(f"{of_one}/{model}", MODEL):
                        path = f"{of_one}/{model}/{tag}"
                        if (state := _state(path)) is not None:
                            name = _short_name(host, namespace, model, tag)
                            yield ManifestFile(path, name, state)

    def open(self, file: ManifestFile) -> StoredModel:
        """Read a manifest and its configuration; raises one of `UNREADABLE`."""
        raw = _read_text(Path(file.path))
        manifest = msgspec.json.decode(raw, type=Manifest)
        layers, config = manifest.layers or [], Config()
        if manifest.config.digest:
            config = msgspec.json.decode(self.read(manifest.config), type=Config)
        size = sum(layer.size for layer in [*layers, manifest.config])
        digest = hashlib.sha256(raw).hexdigest()
        return StoredModel(file.name, digest, file.state[0], layers, config, size)

    def blob(self, digest: str) -> Path:
        """Return the file of a layer; raises `ValueError` if that is no digest."""
        match = _DIGEST.match(digest)
        if match is None:
            raise ValueError(f"{digest!r} is no digest")
        return self._folder / "blobs" / f"sha256-{match[1]}"

    def read(self, layer: Layer) -> bytes:
        """Return a layer that is a text; raises one of `UNREADABLE`."""
        return _read_text(self.blob(layer.digest))

    def head(self, model: StoredModel, *, whole: bool) -> Head:
        """Return what a model's weights say of it; nothing if they are no GGUF."""
        weights = model.of_kind("model")
        if not weights or model.config.model_format not in {"", "gguf"}:
            return Head()
        try:
            path = self.blob(weights[-1].digest)
        except ValueError:
            return Head()
        return read_head(path, whole=whole) or Head()

    def template(self, model: StoredModel) -> str | None:
        """Return a model's own template; None if it has none."""
        layers = model.of_kind("template", "prompt")
        return self.read(layers[-1]).decode("utf-8", "replace") if layers else None


def _short_name(host: str, namespace: str, model: str, tag: str) -> str:
    """Return a name without the parts that Ollama adds by itself."""
    if host.lower() != "registry.ollama.ai":
        return f"{host}/{namespace}/{model}:{tag}"
    if namespace.lower() != "library":
        return f"{namespace}/{model}:{tag}"
    return f"{model}:{tag}"


def _state(path: str) -> tuple[int, int, int] | None:
    """Return what changes with a file; None if it is no plain one."""
    try:
        status = os.stat(path)  # noqa: PTH116 - paths as texts: asked for all the time
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _names(folder: str, name: re.Pattern[str]) -> list[str]:
    """Return the entries of a folder whose names Ollama accepts."""
    return sorted(one for one in os.listdir(folder) if name.match(one))  # noqa: PTH208


def _names_below(folder: str, name: re.Pattern[str]) -> list[str]:
    """Return the entries of a folder; none if it can't be read."""
    try:
        return _names(folder, name)
    except OSError:
        return []


def _read_text(path: Path) -> bytes:
    """Return a file; raises `ValueError` if it is too long for a text, or no file."""
    if _state(str(path)) is None:
        raise ValueError(f"{str(path)!r} is no file")
    with path.open("rb") as file:
        data = file.read(_TEXT_BYTES + 1)
    if len(data) > _TEXT_BYTES:
        raise ValueError(f"{str(path)!r} is too long")
    return data
