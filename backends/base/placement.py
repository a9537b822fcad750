"""Order where an instance may be made: what had no room lately comes last."""

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import BackendError, CapacityError, SpecError

_NO_ROOM_S = 600.0
"""How long a placement without room is tried after all others."""


class Placement(NamedTuple):
    """Names a location of a cloud, and a type of instance as a person wrote it.

    ``type_name`` is empty for clouds with a single configured type.
    """

    location: str
    type_name: str = ""


class Room:
    """Remembers where there was no room lately."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._full_at: dict[Placement, float] = {}

    def note_full(self, placement: Placement) -> None:
        """Remember that there was no room in a placement."""
        self._full_at[placement] = self._clock.now()

    def is_full(self, placement: Placement) -> bool:
        """Tell whether there was no room in a placement lately."""
        lately = self._clock.now() - _NO_ROOM_S
        return self._full_at.get(placement, 0.0) > lately

    def in_order(self, placements: Iterable[Placement]) -> list[Placement]:
        """Return placements in the order of the tries: those without room come last."""
        return sorted(placements, key=self.is_full)

    async def first_that_takes(
        self,
        placements: Iterable[Placement],
        make: Callable[[Placement], Awaitable[None]],
        *,
        passed_over: tuple[type[BackendError], ...] = (CapacityError, SpecError),
    ) -> None:
        """Create an instance in the first placement that does not refuse it.

        ``passed_over``: refusals after which the next placement is tried. If all
        refuse, a `CapacityError` is raised rather than any other refusal.
        """
        problems: list[BackendError] = []
        for placement in self.in_order(placements):
            try:
                await make(placement)
            except passed_over as error:
                problems.append(error)
                self.note_full(placement)
            else:
                return
        full = [error for error in problems if isinstance(error, CapacityError)]
        raise (full or problems)[0]
