"""Declare the ports of a store that the fleet and the backends use.

`ollama_proxy.store.ports` has the rest. These are here because fleet and store do not
import one another, and both need the ports.
"""

from collections.abc import Mapping
from typing import Protocol

from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import LaunchId, Record
from ollama_proxy.core.restore_plan import StickyModel


class RecordStore(Protocol):
    """Keeps the record of each slot: the intended and known state of its instance."""

    def get(self, slot: str) -> Record | None:
        """Return the record of a slot; None if it never had one."""

    def put(self, slot: str, record: Record, transition: Transition | None) -> None:
        """Write a record, and a line of the journal if the state changed.

        Raises `StoreError` if it is not written.
        """

    async def reserve(self, slot: str, launch: Record, transition: Transition) -> None:
        """Write the record of a launch that is about to begin, and its journal line.

        When this returns the record is durable; only then the cloud is called. Later
        writes of `put` for the slot stay later. Raises `StoreError` if it is not
        durable, or if that is uncertain; then the launch does not begin.
        """


class LaunchRegister(Protocol):
    """Knows the launches that were ever begun from here."""

    def launch_ids(self) -> set[LaunchId]:
        """Return every launch that a record names. Raises `StoreError`."""

    def remembers(self, launch_id: LaunchId) -> bool:
        """Tell whether a launch is on record, or ever was. Raises `StoreError`."""


class LaunchHistory(Protocol):
    """Remembers how long the last launches of each offer took."""

    def add_launch(self, offer: str, duration_s: float) -> None:
        """Remember how long a launch took from wake to ready. Raises `StoreError`."""

    def launch_durations_s(self, offer: str) -> list[float]:
        """Return how long the last launches of an offer took, the oldest first."""


class StageHistory(Protocol):
    """Remembers how long the stages of the last launches of each offer took."""

    def add(self, offer: str, stages: Mapping[str, float]) -> None:
        """Remember the seconds of each stage of a launch, in order.

        Raises `StoreError`.
        """

    def launches(self, offer: str) -> list[dict[str, float]]:
        """Return the stages of the last launches of an offer, the oldest first."""


class ModelStore(Protocol):
    """Remembers the models that clients put on the instances."""

    def sticky_models(self) -> list[StickyModel]:
        """Return every model that is remembered, by name."""

    def put_sticky(self, model: StickyModel) -> None:
        """Remember a model, in place of one of its name. Raises `StoreError`."""

    def drop_sticky(self, name: str) -> None:
        """Forget a model. Raises `StoreError`."""


class BackendNotes(Protocol):
    """Keeps what one backend has to know of its launches after a crash."""

    def notes(self) -> dict[LaunchId, bytes]:
        """Return every note."""

    def put_note(self, launch_id: LaunchId, note: bytes) -> None:
        """Write a note. Raises `StoreError` if it is not on disk afterwards."""

    def drop_note(self, launch_id: LaunchId) -> None:
        """Forget a note. Raises `StoreError`."""
