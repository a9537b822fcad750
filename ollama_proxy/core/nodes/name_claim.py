"""Decide which of several machines has a name, when more than one beats under it.

The newest has it. An older one is refused as long as the newest beats, so that requests
do not go to one and the other in turn. A machine is known by its agent's boot id, or,
if its agent is a former one, by where it is called.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MOST_DISPLACED: Final = 8


@dataclass(frozen=True, slots=True)
class NameClaim:
    """Holds which machine has a name, and from which ones it took it, newest last."""

    holder: str
    displaced: tuple[str, ...] = ()

    def is_refused(self, machine: str, *, is_holder_silent: bool) -> bool:
        """Tell whether a machine's beat is refused: a newer one has the name.

        ``is_holder_silent``: that one has missed its beats.
        """
        return machine in self.displaced and not is_holder_silent

    def taken_by(self, machine: str) -> "NameClaim":
        """Return the claim once a machine has the name that was not refused it."""
        if machine == self.holder:
            return self
        others = (*self.displaced, self.holder)
        displaced = tuple(one for one in others if one != machine)
        return NameClaim(machine, displaced[-MOST_DISPLACED:])


def machine_of(
    boot_id: str, peer: str, port: int, addresses: Sequence[str | None]
) -> str:
    """Return what tells the machine of a beat from another one.

    ``boot_id`` is empty for a former agent. One that names its own addresses, of which
    ``peer`` is one, is the same over IPv4 and IPv6.
    """
    if boot_id:
        return boot_id
    named = [one for one in addresses if one]
    where = " ".join(named) if peer in named else peer
    return f"{where} port {port}"
