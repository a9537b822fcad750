"""Keep what is known of the purchase of one launch: on disk before money is spent."""

import contextlib

import msgspec

from ollama_proxy.backends.notes import read_note, read_notes
from ollama_proxy.base.errors import StoreError
from ollama_proxy.base.moments import restored_moment
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Notes

_ZONES = LaunchId("zones")
"""Under this name the notes keep every zone in which something was ever bought."""

_SHOWN = LaunchId("shown")
"""Under this name they keep what Exoscale has shown, by id, with its zone."""


class Placement(msgspec.Struct, frozen=True):
    """Names a type of instance, as a person wrote it, in a zone."""

    zone: str
    type_name: str


class Purchase(msgspec.Struct, frozen=True):
    """Holds the purchase of one launch. Moments are those of `Clock.now`.

    ``attempted_at``: when a create call was sent whose answer is not known to be a
    refusal; None if none was. ``instance_id`` is known from the answer. ``seen``:
    Exoscale has shown it once, so from then on its absence means that it is gone.
    ``served``: it was ready once, so it may be kept for the next launch. ``identity``:
    the launch that its certificate names, if it was kept from that one. ``parked``:
    it is being kept for the next one. ``doomed``: it has to be gone before another
    is bought.
    """

    offer: Placement
    attempted_at: float | None = None
    instance_id: str | None = None
    operation_id: str | None = None
    seen: bool = False
    served: bool = False
    identity: str | None = None
    parked: bool = False
    doomed: bool = False

    @property
    def create_not_sent(self) -> bool:
        """Tell whether nothing was bought: no call was sent, or it was refused."""
        return self.attempted_at is None and self.instance_id is None

    def restored(self, now: float) -> "Purchase":
        """Return it as a new process reads it: what can't have been was just now."""
        if self.attempted_at is None:
            return self
        attempted_at = restored_moment(self.attempted_at, now)
        return msgspec.structs.replace(self, attempted_at=attempted_at)


class Ledger:
    """Keeps the purchases of a deployment in the notes, from `start` on."""

    def __init__(self, notes: Notes, now: float) -> None:
        self._notes = notes
        kept = notes.notes()
        zones = read_note(_ZONES, kept.pop(_ZONES, b"[]"), list[str]) or []
        shown = read_note(_SHOWN, kept.pop(_SHOWN, b"{}"), dict[str, str]) or {}
        read, self._damaged = read_notes(kept, Purchase)
        self._kept = {name: one.restored(now) for name, one in read.items()}
        self._zones = {*zones, *(one.offer.zone for one in self._kept.values())}
        noted = {
            one.instance_id: one.offer.zone
            for one in self._kept.values()
            if one.instance_id and one.seen
        }
        self.shown = noted | shown
        for name in self._damaged:  # it may have been sent a moment ago, anywhere
            self._kept[name] = Purchase(Placement("", ""), attempted_at=now)

    def get(self, launch_id: LaunchId) -> Purchase | None:
        """Return what is known of a launch."""
        return self._kept.get(launch_id)

    def zones(self) -> set[str]:
        """Return every zone in which anything of ours ever was."""
        return set(self._zones)

    def instance_ids(self) -> set[str]:
        """Return the instances of the launches that are known."""
        return {one.instance_id for one in self._kept.values() if one.instance_id}

    def note_shown(self, shown: dict[str, str]) -> None:
        """Remember what was shown; a full disk keeps nothing from running."""
        self.shown = shown
        with contextlib.suppress(StoreError):
            self._notes.put_note(_SHOWN, msgspec.json.encode(shown))

    def put(self, launch_id: LaunchId, purchase: Purchase) -> None:
        """Write a purchase; raises `StoreError` if it is not on disk afterwards."""
        if purchase.offer.zone not in self._zones:
            zones = sorted({*self._zones, purchase.offer.zone})
            self._notes.put_note(_ZONES, msgspec.json.encode(zones))
            self._zones = set(zones)
        self._notes.put_note(launch_id, msgspec.json.encode(purchase))
        self._kept[launch_id] = purchase
        self._damaged.discard(launch_id)

    def mark(self, launch_id: LaunchId, **changes: bool) -> Purchase:
        """Change what is known of a purchase, as `put` does; return it."""
        changed = msgspec.structs.replace(self._kept[launch_id], **changes)
        self.put(launch_id, changed)
        return changed

    def drop(self, launch_id: LaunchId) -> None:
        """Forget a launch of which nothing is left."""
        if launch_id in self._kept or launch_id in self._damaged:
            self._notes.drop_note(launch_id)
            self._kept.pop(launch_id, None)
            self._damaged.discard(launch_id)
