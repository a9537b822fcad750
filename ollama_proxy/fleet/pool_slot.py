"""Group the controllers of one place in a pool: one for each offer, in order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ollama_proxy.core.lifecycle.record import AT_REST
from ollama_proxy.fleet.controller import Controller


@dataclass(frozen=True, slots=True)
class PoolSlot:
    """Holds the controllers of one slot, of which one at a time has its instance.

    ``controllers``: one for each offer, in order of preference. A server that somebody
    else manages is the only one of its slot.
    """

    index: int
    controllers: tuple[Controller, ...]

    @property
    def is_external(self) -> bool:
        """Tell whether the slot's server is managed by somebody else."""
        return self.controllers[0].offer.is_external

    @property
    def current(self) -> Controller | None:
        """Return the controller that has the slot's instance, or begins one.

        One that its cloud had no room for leaves beside it, and is not the current one.
        """
        for controller in self.controllers:
            record = controller.record
            is_running = record.state not in AT_REST and not record.leaving
            if is_running or controller.is_reserving:
                return controller
        return None

    @property
    def name(self) -> str:
        """Return what plans call the slot."""
        if self.is_external:
            return self.controllers[0].offer.name
        return f"slot {self.index}"


def slots_of(controllers: Iterable[Controller]) -> Sequence[PoolSlot]:
    """Return a slot for each controller, where there is one offer."""
    return [PoolSlot(index, (one,)) for index, one in enumerate(controllers)]
