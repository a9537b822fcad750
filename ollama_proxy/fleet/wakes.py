"""Say what a pool asks of the part that begins its launches.

`LoneWakes` is for a pool of one instance and one offer; `PoolOwner` for all others.
"""

from collections.abc import Mapping
from typing import Protocol

from ollama_proxy.core.lifecycle.events import Wake
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.core.offer_choice import Obstacle
from ollama_proxy.core.pool_facts import PoolFacts
from ollama_proxy.fleet.controller import Controller

AWAKE = {State.STARTING, State.READY}
LEAVING = {State.DRAINING, State.STOPPING}
ANY_WAKE = Wake(LaunchId("any"))
"""A wake where no launch begins, or one that asks whether a launch would begin."""


class Wakes(Protocol):
    """Begins launches, and tells whether any is to come."""

    @property
    def would_launch(self) -> bool:
        """Tell whether a wake would begin a launch, now or after the present stop.

        False if a launch is under way, or will follow by itself.
        """

    def must_reserve(self, model: str | None) -> bool:
        """Tell whether a wake for a model has to wait until a launch is on disk."""

    @property
    def is_coming(self) -> bool:
        """Tell whether a launch is under way, or will follow by itself."""

    @property
    def is_vain(self) -> bool:
        """Tell whether no launch is under way, nor one to come by itself."""

    @property
    def is_own_coming(self) -> bool:
        """Tell whether an instance of ours is ready, or asked for."""

    async def wake(
        self, model: str | None, *, forced: bool = False, own: bool = False
    ) -> None:
        """Begin a launch, or join the one under way. Raises `StoreError`.

        ``own``: servers of others won't do.
        """

    def join(self, model: str | None, *, own: bool = False) -> None:
        """Note one more wish where no launch has to be written down."""

    def rest(self) -> None:
        """Begin nothing until somebody asks again: a person wants no instance."""

    def restore(self) -> None:
        """Take up what an earlier process left, and begin to own it."""

    def note(self, controller: Controller, before: Record, after: Record) -> None:
        """Take in a change of state of one instance."""

    def look(self) -> None:
        """Look now: a request waits that no ready instance has a free slot for."""

    def note_nodes(self) -> None:
        """Take in that nodes of the pool can serve more than before, or less."""

    def note_service(self) -> None:
        """Take in that a request is being answered."""

    def obstacles(self) -> Mapping[str, Obstacle]:
        """Return why which offers are not asked at this moment, in their order."""

    def facts(self) -> PoolFacts:
        """Return what a plan of the pool looks at."""


def was_just_woken(controller: Controller, now: float, grain_s: float) -> bool:
    """Tell whether one more wake, of thousands a second, changes nothing."""
    record = controller.record
    is_recent = 0 <= now - record.last_used < grain_s
    return record.state is State.STARTING and is_recent
