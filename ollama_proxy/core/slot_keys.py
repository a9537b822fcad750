"""Name the record of an instance: its pool, its slot there and its offer."""

from dataclasses import dataclass

_PARTS = 3


@dataclass(frozen=True, slots=True)
class SlotKey:
    """Says whose a record is; as text it is ``POOL/INDEX/OFFER``.

    A slot has one record for each offer of its pool. ``offer`` is empty in a record of
    an earlier version that did not note it.
    """

    pool: str
    index: int
    offer: str

    def __str__(self) -> str:
        return f"{self.pool}/{self.index}/{self.offer}"


def parse_slot_key(text: str) -> SlotKey | None:
    """Return the parts of a key; None if it is none."""
    parts = text.split("/")
    if len(parts) != _PARTS or not (parts[1].isascii() and parts[1].isdigit()):
        return None
    return SlotKey(parts[0], int(parts[1]), parts[2])
