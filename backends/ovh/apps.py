"""Find the apps of a deployment among all others by their labels."""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from ollama_proxy.backends.base.cloud import Resource
from ollama_proxy.backends.base.ownership_tags import TagFormat
from ollama_proxy.base.errors import TransientError

_MANAGER = "ollama-proxy-managed"
TAGS = TagFormat((_MANAGER, "true"), prefix="ollama-proxy-")

LEAVING = frozenset({"DELETING", "DELETED"})
"""States in which an app needs no deletion any more."""

BROKEN = {
    "FAILED": "the app has failed",
    "ERROR": "the platform reports an error of the app",
    "STOPPING": "the app is being stopped",
    "STOPPED": "the app was stopped",
    "DELETING": "the app is being deleted",
}
"""States in which an app will never serve, in words."""


class Info(msgspec.Struct, frozen=True):
    """Says why an app is in its state."""

    code: str = ""
    message: str = ""


class AppStatus(msgspec.Struct, frozen=True, rename="camel"):
    """Describes an app as the platform shows it; any key may be missing or null."""

    state: str = "unknown"
    url: str | None = None
    available_replicas: int | None = None
    info: Info | None = None


class AppSpec(msgspec.Struct, frozen=True, rename="camel"):
    """Holds the part of an app's specification that is read back."""

    name: str | None = None
    image: str = ""
    labels: dict[str, str] | None = None
    resources: dict[str, Any] | None = None


class App(Resource, msgspec.Struct, frozen=True, rename="camel"):
    """Describes one app. Its URL exists from the first moment, and proves nothing."""

    tag_format: ClassVar = TAGS

    id: str
    created_at: str = ""
    spec: AppSpec = AppSpec()
    status: AppStatus = AppStatus()

    @property
    def state(self) -> str:
        """Return the name of its state, in capitals."""
        return self.status.state.upper()

    @property
    def flavor(self) -> str:
        """Return the flavour that it runs on, in words."""
        return str((self.spec.resources or {}).get("flavor", "flavour unknown"))

    @property
    def is_stopped(self) -> bool:
        """Tell whether it runs nothing and can be started again.

        A failed app counts as stopped once the platform reports no replica.
        """
        failed = self.state == "FAILED" and self.status.available_replicas == 0
        return self.state == "STOPPED" or failed

    @property
    def state_in_words(self) -> str:
        """Return its state, for a person."""
        return self.state.lower()

    @property
    def is_leaving(self) -> bool:
        """Tell whether it is deleted, or about to be."""
        return self.state in LEAVING

    @property
    def is_stopping(self) -> bool:
        """Tell whether a stop was asked for."""
        return self.state == "STOPPING"

    @property
    def raw_tags(self) -> dict[str, str]:
        """Return its labels, ours or not."""
        return self.spec.labels or {}

    def why(self) -> str:
        """Return its state in words, with the platform's message."""
        words = BROKEN.get(self.state, f"the app is {self.state}")
        info = self.status.info
        said = " ".join((info.message or info.code).split())[:200] if info else ""
        return f"{words}: {said}" if said else words


def read_app(answer: object) -> App:
    """Return the app of an answer; raises `TransientError` if it can't be read."""
    try:
        return msgspec.convert(_without_nulls(answer), App)
    except msgspec.ValidationError as error:
        message = f"AI Deploy's answer about an app can't be read: {error}"
        raise TransientError(message) from error


def read_apps(answer: Sequence[Any]) -> list[App]:
    """Return the apps of a list; skip invalid ones of others."""
    found = []
    for raw in answer:
        try:
            found.append(read_app(raw))
        except TransientError:
            if _MANAGER in str(raw):
                raise
    return found


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if one is not None}
        return {key: _without_nulls(one) for key, one in kept.items()}
    return value


def described(region: str, app: App) -> str:
    """Return an app in words: where, which, in which state, and its address."""
    url = app.status.url or "–"
    return f"app {app.id} in {region}, {app.flavor}, {app.state}, {url}"
