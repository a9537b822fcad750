"""Know what only one instance of a pool has: files sent to it, models made on it.

In memory: what an instance has ends with it.
"""

from collections.abc import Callable, Collection
from typing import Final

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.ollama.model_names import full_model_name

MOST: Final = 10_000
"""How many files, and how many models, are remembered: the newest."""


class Whereabouts:
    """Remembers by launch; ``is_ready`` tells whether the instance of a launch serves.

    Where a pool has one instance at most, there is nothing to remember.
    """

    def __init__(
        self, is_ready: Callable[[LaunchId], bool], *, matters: bool, most: int = MOST
    ) -> None:
        self._is_ready = is_ready
        self.matters = matters
        self._most = most
        self._files: dict[tuple[LaunchId, str], None] = {}
        self._models: dict[str, LaunchId] = {}
        self._uploads: LaunchId | None = None

    def uploaded(self, digest: str, launch_id: LaunchId) -> None:
        """Remember a file, and that others go to the same instance."""
        if self.matters:
            self._files.pop((launch_id, _digest(digest)), None)
            self._files[launch_id, _digest(digest)] = None
            self._uploads = launch_id
            while len(self._files) > self._most:
                del self._files[next(iter(self._files))]

    def created(self, model: str, launch_id: LaunchId) -> None:
        """Remember a model that exists on its instance alone."""
        if self.matters and model:
            self._models.pop(full_model_name(model), None)
            self._models[full_model_name(model)] = launch_id
            while len(self._models) > self._most:
                del self._models[next(iter(self._models))]

    def copied(self, source: str, destination: str) -> None:
        """Remember that a copy is where its source is."""
        where = self._models.get(full_model_name(source))
        if where is not None:
            self.created(destination, where)
        else:
            self.spread(destination)

    def spread(self, model: str) -> None:
        """Forget a model that other instances have as well, or none."""
        self._models.pop(full_model_name(model), None)

    def instance_of(self, model: str) -> LaunchId | None:
        """Return the ready instance that alone has a model."""
        launch_id = self._models.get(full_model_name(model))
        return launch_id if launch_id and self._is_ready(launch_id) else None

    def instance_with(self, digests: Collection[str]) -> LaunchId | None:
        """Return the ready instance that files go to, or another that has them all."""
        there: dict[LaunchId, int] = {}
        wanted = {_digest(one) for one in digests}
        for launch_id, digest in self._files:
            there[launch_id] = there.get(launch_id, 0) + (digest in wanted)
        last = self._uploads
        if last is not None and there.get(last) == len(wanted) and self._is_ready(last):
            return last
        for launch_id, count in there.items():
            if wanted and count == len(wanted) and self._is_ready(launch_id):
                return launch_id
        return last if last is not None and self._is_ready(last) else None

    def gone(self, launch_id: LaunchId) -> None:
        """Forget an instance."""
        self._files = {one: None for one in self._files if one[0] != launch_id}
        self._models = {
            name: where for name, where in self._models.items() if where != launch_id
        }
        if self._uploads == launch_id:
            self._uploads = None


def _digest(text: str) -> str:
    """Return a digest as Ollama compares it: its hexadecimal digits."""
    return text[-64:].lower()
