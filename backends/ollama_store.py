"""List the models of an Ollama on this machine from its disk, without its server.

Each call checks the state of every manifest; a file is read again only if its state has
changed. Broken models are left out, as in Ollama.
"""

from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from ollama_proxy.backends.ollama_answers import listed, shown
from ollama_proxy.backends.ollama_files import (
    UNREADABLE,
    ManifestFile,
    ModelFiles,
    StoredModel,
)
from ollama_proxy.core.ollama.model_names import full_model_name

MOST_MODELS: Final = 2000
"""How many models are listed at most."""

_KEPT_SHOWS = 32


class _Seen(NamedTuple):
    """Keeps a manifest as it was last read; ``model`` is None if it is broken."""

    file: ManifestFile
    model: StoredModel | None
    entry: bytes


class OllamaStore:
    """Tells of the models in a folder, of ``most`` at most."""

    def __init__(self, folder: Path, *, most: int = MOST_MODELS) -> None:
        self._files = ModelFiles(folder)
        self._most = most
        self._seen: dict[str, _Seen] = {}
        self._tags = b""
        self._shows: dict[str, bytes] = {}

    def tags(self) -> bytes | None:
        """Return the body of ``/api/tags``, the same object while nothing changes.

        None if the folder can't be read; a missing folder holds no models.
        """
        try:
            found = self._look()
        except FileNotFoundError:
            found = {}
        except OSError:
            return None
        if found != self._seen or not self._tags:
            self._seen = found
            whole = [one for one in found.values() if one.model is not None]
            whole.sort(key=lambda one: -(one.file.state[0] // 1_000_000_000))
            self._tags = b'{"models":[%b]}' % b",".join(one.entry for one in whole)
        return self._tags

    def show(self, full_name: str) -> bytes | None:
        """Return the body of ``/api/show`` of a listed model; None if it is broken."""
        for seen in self._seen.values():
            model = seen.model
            if model is not None and full_model_name(model.name) == full_name:
                return self._show(model)
        return None

    def _show(self, model: StoredModel) -> bytes | None:
        key = f"{model.name} {model.digest} {model.modified_ns}"
        if key not in self._shows:
            try:
                body = shown(self._files, model)
            except UNREADABLE:
                return None
            while len(self._shows) >= _KEPT_SHOWS:
                del self._shows[next(iter(self._shows))]
            self._shows[key] = body
        return self._shows[key]

    def _look(self) -> dict[str, _Seen]:
        """Return every manifest; those that have not changed as they were seen."""
        found: dict[str, _Seen] = {}
        for file in islice(self._files.manifests(), self._most):
            seen = self._seen.get(file.path)
            if seen is None or seen.file.state != file.state:
                seen = self._read(file)
            found[file.path] = seen
        return found

    def _read(self, file: ManifestFile) -> _Seen:
        try:
            model = self._files.open(file)
            return _Seen(file, model, listed(self._files, model))
        except UNREADABLE:
            return _Seen(file, None, b"")
