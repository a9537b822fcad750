"""What is known of the purchase of one launch: on disk before the money is spent."""

import msgspec

from ollama_proxy.backend import Notes
from ollama_proxy.record import LaunchId


class Offer(msgspec.Struct, frozen=True):
    """A type of instance, by the name that a person gave it, in a zone."""

    zone: str
    type_name: str


class Purchase(msgspec.Struct, frozen=True):
    """One launch. Moments are epoch seconds.

    ``attempted_at``: when a create call was sent whose answer is not known to be a
    refusal; None if none was. ``instance_id`` is known from the answer. ``seen``:
    Exoscale has shown it once, so from then on its absence means that it is gone.
    ``served``: it was ready once, so it may be kept for the next launch. ``identity``:
    the launch that its certificate names, if it was kept from that one.
    """

    offer: Offer
    attempted_at: float | None = None
    instance_id: str | None = None
    operation_id: str | None = None
    seen: bool = False
    served: bool = False
    identity: str | None = None

    @property
    def was_never_sent(self) -> bool:
        """Whether nothing can have been bought: no call was sent, or it was refused."""
        return self.attempted_at is None and self.instance_id is None


class Ledger:
    """The purchases of a deployment, kept in the notes from `start` on."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._kept = {
            launch_id: msgspec.json.decode(note, type=Purchase)
            for launch_id, note in notes.notes().items()
        }

    def get(self, launch_id: LaunchId) -> Purchase | None:
        """Return what is known of a launch."""
        return self._kept.get(launch_id)

    def zones(self) -> set[str]:
        """Return every zone in which there may be something of ours."""
        return {purchase.offer.zone for purchase in self._kept.values()}

    def put(self, launch_id: LaunchId, purchase: Purchase) -> None:
        """Write a purchase; raises `StoreError` if it is not on disk afterwards."""
        self._notes.put_note(launch_id, msgspec.json.encode(purchase))
        self._kept[launch_id] = purchase

    def drop(self, launch_id: LaunchId) -> None:
        """Forget a launch of which nothing is left."""
        if launch_id in self._kept:
            self._notes.drop_note(launch_id)
            del self._kept[launch_id]
