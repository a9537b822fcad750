"""Find the apps of a deployment among all others by their labels."""

from collections.abc import Sequence
from typing import Any

import msgspec

from ollama_proxy.base.errors import TransientError
from ollama_proxy.core.lifecycle.record import LaunchId

_PREFIX = "ollama-proxy-"
_MANAGER = f"{_PREFIX}managed"

LEAVING = frozenset({"DELETING", "DELETED"})
"""States of what does not have to be deleted any more."""

BROKEN = {
    "FAILED": "the app has failed",
    "ERROR": "the platform reports an error of the app",
    "STOPPING": "the app is being stopped",
    "STOPPED": "the app was stopped",
    "DELETING": "the app is being deleted",
}
"""States of what will never serve by itself, in words."""


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


class App(msgspec.Struct, frozen=True, rename="camel"):
    """Describes one app. Its URL exists from the first moment, and proves nothing."""

    id: str
    created_at: str = ""
    spec: AppSpec = AppSpec()
    status: AppStatus = AppStatus()

    @property
    def state(self) -> str:
        """Return the name of its state, in capitals."""
        return self.status.state.upper()

    @property
    def is_resting(self) -> bool:
        """Tell whether it runs nothing and can be started again.

        One that failed rests once the platform says that no replica is left.
        """
        failed = self.state == "FAILED" and self.status.available_replicas == 0
        return self.state == "STOPPED" or failed

    @property
    def lease_end(self) -> float:
        """Return until when it is marked as wanted, in epoch seconds."""
        text = self.label("lease") or ""
        return float(text) if text.isdecimal() else 0.0

    def label(self, name: str) -> str | None:
        """Return one of our labels."""
        return (self.spec.labels or {}).get(_PREFIX + name)

    def why(self) -> str:
        """Return its state in words, with what the platform says of it."""
        words = BROKEN.get(self.state, f"the app is {self.state}")
        info = self.status.info
        said = " ".join((info.message or info.code).split())[:200] if info else ""
        return f"{words}: {said}" if said else words


def label_name(name: str) -> str:
    """Return the whole name of one of our labels."""
    return _PREFIX + name


class OwnershipTags:
    """Holds the labels of one owner."""

    def __init__(self, owner_id: str) -> None:
        self._owner_id = owner_id

    def of(
        self, launch_id: LaunchId, *, lease_end: float, spec: str, identity: str | None
    ) -> dict[str, str]:
        """Return the labels of a new app.

        ``spec`` tells apps apart that were made by different settings; ``identity``
        is the launch whose token its guard knows, if it knows one.
        """
        labels = {
            _MANAGER: "true",
            label_name("owner"): self._owner_id,
            label_name("launch"): str(launch_id),
            label_name("lease"): f"{lease_end:.0f}",
            label_name("spec"): spec,
        }
        return labels | ({label_name("identity"): identity} if identity else {})

    def is_ours(self, app: App) -> bool:
        """Tell whether we made it."""
        return is_made_by_us(app) and app.label("owner") == self._owner_id


def is_made_by_us(app: App) -> bool:
    """Tell whether any deployment of this product made it."""
    return (app.spec.labels or {}).get(_MANAGER) == "true"


def launch_of(app: App) -> LaunchId:
    """Return the launch that one of ours belongs to."""
    return LaunchId(app.label("launch") or f"unlabelled-{app.id}")


def read_app(answer: object) -> App:
    """Return the app of an answer; raises `TransientError` if it can't be read."""
    try:
        return msgspec.convert(_without_nulls(answer), App)
    except msgspec.ValidationError as error:
        message = f"AI Deploy's answer about an app can't be read: {error}"
        raise TransientError(message) from error


def read_apps(answer: Sequence[Any]) -> list[App]:
    """Return the apps of a list; what is not ours may look as it likes."""
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
    flavor = (app.spec.resources or {}).get("flavor", "flavour unknown")
    return f"app {app.id} in {region}, {flavor}, {app.state}, {app.status.url or '–'}"


def oldest_first(apps: Sequence[App]) -> list[App]:
    """Return apps in the order in which they were made."""
    return sorted(apps, key=lambda one: (one.created_at, one.id))
