"""Answer questions about models while no instance runs, from the last instance's lists.

Filled by every instance that becomes ready, kept in the store, and served in Ollama's
shapes. Bodies from an instance are served byte for byte. Models that the next instance
will have are listed even if the last one did not have them.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from ollama_proxy.core.ollama.go_words import rfc3339
from ollama_proxy.core.ollama.listed_models import (
    NO_DETAILS,
    NO_TAGS,
    ListedModel,
    described,
    models_by_name,
    openai_model_of,
    with_more,
)
from ollama_proxy.core.ollama.model_names import full_model_name

_SLEWED_S = 60.0  # a clock that is slewed by less has not been set


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Holds the raw answers of one instance; ``shows`` by resolved model name."""

    tags: bytes
    version: str
    shows: Mapping[str, bytes] = field(default_factory=dict)


class Restored(Protocol):
    """Tells the models of clients; ``revision`` changes whenever these do."""

    @property
    def revision(self) -> int:
        """Return which of several states this is."""

    def expected(self, configured: Sequence[str]) -> Sequence[str]:
        """Return the models that the next instance will have, by name."""


class Stock(Protocol):
    """Lists models while nothing runs: see `SupportsModelListing`."""

    def tags(self) -> bytes | None:
        """Return the body of ``/api/tags``, the same object while nothing changes."""

    def show(self, full_name: str) -> bytes | None:
        """Return the body of ``/api/show`` of a model."""


class Catalog:
    """Answers questions about models while no instance runs.

    ``restored``: changes which models the next instance will have. ``stock``: knows the
    present models better than the last instance did. ``since``: date of models that no
    instance has had; it changes when the clock is set.
    """

    def __init__(
        self,
        configured: Sequence[str],
        *,
        version: str,
        since: Callable[[], float],
        contents: Snapshot | None = None,
        restored: Restored | None = None,
        stock: Stock | None = None,
    ) -> None:
        self._configured = tuple(configured)
        self._restored = restored
        self._stock = stock
        self._revision: int | None = None
        self._wanted = self._configured
        self._default_version = version
        self._since = since
        self._dated = since()
        self._contents = contents
        self.begin_with(contents)

    @property
    def contents(self) -> Snapshot | None:
        """Return the last instance's answers; None before the first."""
        return self._contents

    def replace(self, contents: Snapshot) -> None:
        """Replace the answers by an instance's; raises `ValueError` for no list."""
        self._view = _make_view(contents.tags, self._expected(), self._placeholder)
        self._contents = contents

    def begin_with(self, contents: Snapshot | None) -> None:
        """Switch to the known models of another place; None if there are none."""
        self._contents = contents
        said = contents.tags if contents is not None else None
        self._view = _make_view(said, self._expected(), self._placeholder)

    def _expected(self) -> tuple[str, ...]:
        """Return the models that the next instance will have: asked all the time."""
        if self._restored is None:
            return self._configured
        if self._revision != self._restored.revision:
            self._revision = self._restored.revision
            self._wanted = tuple(self._restored.expected(self._configured))
        return self._wanted

    def _look(self, *, dates: bool = True) -> "_View":
        """Return the current view, rebuilt if the models have changed.

        Without ``dates``, the dates of models that no instance has had may be outdated.
        """
        stock = self._stock.tags() if self._stock is not None else None
        if stock is not None:
            with contextlib.suppress(ValueError):  # invalid, from a plug-in
                return self._made(stock, dates=dates)
        said = self._contents.tags if self._contents is not None else None
        return self._made(said, dates=dates)

    def _made(self, said: bytes | None, *, dates: bool) -> "_View":
        expected = self._expected()
        was_set = dates and abs(self._since() - self._dated) > _SLEWED_S
        if self._view.said is not said or self._view.expected != expected or was_set:
            self._dated = self._since()
            self._view = _make_view(said, expected, self._placeholder)
        return self._view

    @property
    def list_id(self) -> str | None:
        """Return the id of the present list; None before the first."""
        view = self._look(dates=False)
        return view.list_id if view.said is not None else None

    def knows(self, full_name: str) -> bool:
        """Tell whether a model is listed, by its full name."""
        return full_name in self._look(dates=False).models

    @property
    def last_version(self) -> str:
        """Return the last version of Ollama seen here, else the configured one."""
        seen = self._contents.version if self._contents else ""
        return seen or self._default_version

    def version(self) -> bytes:
        """Return the body of ``/api/version``: the last one seen."""
        return msgspec.json.encode({"version": self.last_version})

    def tags(self) -> bytes:
        """Return the body of ``/api/tags``."""
        return self._look().tags

    def show(self, model: str) -> bytes | None:
        """Return the body of ``/api/show``, or None for a model not listed."""
        name, view = full_model_name(model), self._look()
        listed = view.models.get(name)
        if (said := self._said(name, view)) is not None:
            return said
        if listed is None:
            return None
        return described(listed.modified_at)

    def _said(self, name: str, view: "_View") -> bytes | None:
        """Return the description of a model, by the last instance or from its files.

        An instance knows more, but it may have had another model of that name.
        """
        contents, listed = self._contents, view.models.get(name)
        recorded = contents.shows.get(name) if contents is not None else None
        is_of_instance = contents is not None and view.said is contents.tags
        if self._stock is None or view.said is None or is_of_instance:
            return recorded
        if listed is None:
            return None
        if recorded is not None and self._was_listed(name, listed.digest):
            return recorded
        return self._stock.show(name)

    def _was_listed(self, name: str, digest: str) -> bool:
        """Tell whether the last instance listed this very model."""
        contents = self._contents
        models = models_by_name(contents.tags) if contents is not None else {}
        return name in models and models[name].digest == digest

    def openai_models(self) -> bytes:
        """Return the body of ``/v1/models``."""
        data = [
            openai_model_of(model) for model in self._look().models.values()
        ] or None
        return msgspec.json.encode({"object": "list", "data": data})

    def openai_model(self, model: str) -> bytes | None:
        """Return the body of ``/v1/models/:model``, or None if not listed."""
        listed = self._look().models.get(full_model_name(model))
        if listed is None:
            return None
        return msgspec.json.encode(openai_model_of(listed, model))

    def _placeholder(self, name: str) -> dict[str, Any]:
        """Return an entry for a model that no instance has had yet.

        The CLI shortens the digest to twelve characters and fails on a shorter one.
        """
        full = full_model_name(name)
        return {
            "name": full,
            "model": full,
            "modified_at": rfc3339(self._dated),
            "size": 0,
            "digest": hashlib.sha256(full.encode()).hexdigest(),
            "details": NO_DETAILS,
        }


@dataclass(frozen=True, slots=True)
class _View:
    """Holds the answers for one state of ``said`` and ``expected``.

    ``said``: the body of ``/api/tags`` from an instance or the stock. ``list_id``: a
    hash of its names.
    """

    said: bytes | None
    expected: tuple[str, ...]
    tags: bytes
    models: Mapping[str, ListedModel]
    list_id: str


def _make_view(
    said: bytes | None,
    expected: tuple[str, ...],
    placeholder: Callable[[str], dict[str, Any]],
) -> _View:
    tags = said if said is not None else NO_TAGS
    models = models_by_name(tags)
    names = "\n".join(sorted(models)).encode("utf-8", "replace")
    lacking = [name for name in expected if full_model_name(name) not in models]
    if lacking:
        tags = with_more(tags, [placeholder(name) for name in lacking])
        models = models_by_name(tags)
    return _View(said, expected, tags, models, hashlib.sha256(names).hexdigest())


def sizes_of(contents: Snapshot | None) -> dict[str, int]:
    """Return how many bytes each model had on the last instance, by full name."""
    if contents is None:
        return {}
    return {name: model.size for name, model in models_by_name(contents.tags).items()}
