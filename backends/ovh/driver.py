"""Define the small part of AI Deploy that the backend needs, for either driver.

Two drivers: `ollama_proxy.backends.ovh.rest` and `ollama_proxy.backends.ovh.cli`.
"""

from typing import Protocol

from ollama_proxy.backends.ovh.apps import App
from ollama_proxy.backends.ovh.flavors import Flavor
from ollama_proxy.backends.ovh.order import Order


class Driver(Protocol):
    """Manages the apps of one region.

    Calls raise `BackendError`s: `NotFoundError` for an id that is clearly unknown,
    `ConflictError` for what an app's state does not allow, `OutcomeUnknownError` for a
    change that may have been made.
    """

    @property
    def hides_environment(self) -> bool:
        """Tell whether an app's secrets stay hidden from this machine's other users."""

    async def apps(self) -> list[App]:
        """Return every app that the credentials show, ours or not."""

    async def app(self, app_id: str) -> App:
        """Return one app."""

    async def create(self, order: Order) -> App:
        """Make an app, which starts at once. Asked twice, it makes two."""

    async def start(self, app_id: str) -> None:
        """Start an app that is stopped."""

    async def stop(self, app_id: str) -> None:
        """Ask for an app to stop; it does so later."""

    async def delete(self, app_id: str, *, force: bool) -> None:
        """Ask for an app to be deleted; one that runs only by ``force``."""

    async def label(self, app_id: str, name: str, value: str) -> None:
        """Set a label of an app."""

    async def log(self, app_id: str) -> str:
        """Return the end of what an app has printed, as it is sent; bounded."""

    async def flavors(self) -> list[Flavor]:
        """Return what the region sells."""

    async def whoami(self) -> str:
        """Return the owner of the credentials and their rights, in words."""

    async def aclose(self) -> None:
        """Close connections and processes. Apps stay as they are."""


def explain_account(told: object) -> str:
    """Return what ``/v1/me`` and ``ovhai me`` say, in words."""
    if not isinstance(told, dict):
        return "accepted"
    parts = [f"accepted as {told.get('name') or told.get('id') or 'a token'}"]
    if role := told.get("role"):
        parts.append(f"role {role}")
    quotas = told.get("quotas")
    resources = quotas.get("resources") if isinstance(quotas, dict) else None
    if isinstance(resources, dict):
        told_quota = ", ".join(f"{n} {v}" for n, v in sorted(resources.items()))
        parts.append(f"quota {told_quota}")
    else:
        parts.append("quota unknown")
    return ", ".join(parts)
