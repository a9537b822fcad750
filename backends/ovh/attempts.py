"""What is known of each launch's app: on disk before anything is asked for."""

import msgspec

from ollama_proxy.backend import Notes
from ollama_proxy.record import LaunchId

_BOOK = LaunchId("ovh")
"""Under this name the notes keep what belongs to no launch."""


class Attempt(msgspec.Struct, frozen=True):
    """One launch. Moments are epoch seconds.

    ``attempted_at``: when an app was asked for whose making is not known to have been
    refused; ``started_at``: when one that rested was told to start. ``app_id`` is known
    from the answer. ``identity``: the launch whose token its guard knows. ``seen``:
    the platform has shown it once, so from then on its absence means that it is gone.
    ``seen_live``: it did not rest since it was started. ``served``: it was ready once.
    """

    region: str
    attempted_at: float | None = None
    started_at: float | None = None
    app_id: str | None = None
    identity: str | None = None
    seen: bool = False
    seen_live: bool = False
    served: bool = False

    @property
    def was_never_sent(self) -> bool:
        """Whether nothing can have been made: no call was sent, or it was refused."""
        return self.attempted_at is None and self.app_id is None

    @property
    def begun_at(self) -> float:
        """When the app was last asked to run; 0 if nobody knows."""
        return self.started_at or self.attempted_at or 0.0


class Book(msgspec.Struct, frozen=True):
    """What outlives launches: the image that was deployed, and regions ever used."""

    image: str | None = None
    regions: tuple[str, ...] = ()


class Attempts:
    """The launches of a deployment, kept in the notes from `start` on."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        kept = notes.notes()
        self.book = msgspec.json.decode(kept.pop(_BOOK, b"{}"), type=Book)
        self._kept = {
            launch_id: msgspec.json.decode(note, type=Attempt)
            for launch_id, note in kept.items()
        }

    def get(self, launch_id: LaunchId) -> Attempt | None:
        """Return what is known of a launch."""
        return self._kept.get(launch_id)

    def app_ids(self) -> set[str]:
        """Return the apps of the launches that are known."""
        return {one.app_id for one in self._kept.values() if one.app_id}

    def launch_of(self, app_id: str) -> LaunchId | None:
        """Return the launch that is known to have an app."""
        found = (name for name, one in self._kept.items() if one.app_id == app_id)
        return next(found, None)

    def put(self, launch_id: LaunchId, attempt: Attempt) -> None:
        """Write an attempt; raises `StoreError` if it is not on disk afterwards."""
        if attempt.region not in self.book.regions:
            regions = (*self.book.regions, attempt.region)
            self._put_book(msgspec.structs.replace(self.book, regions=regions))
        self._notes.put_note(launch_id, msgspec.json.encode(attempt))
        self._kept[launch_id] = attempt

    def mark(self, launch_id: LaunchId, **changes: float | bool | str) -> Attempt:
        """Change what is known of a launch, as `put` does; return it."""
        changed = msgspec.structs.replace(self._kept[launch_id], **changes)
        self.put(launch_id, changed)
        return changed

    def drop(self, launch_id: LaunchId) -> None:
        """Forget a launch of which nothing runs any more."""
        if launch_id in self._kept:
            self._notes.drop_note(launch_id)
            del self._kept[launch_id]

    def put_image(self, image: str | None) -> None:
        """Remember which image was deployed."""
        self._put_book(msgspec.structs.replace(self.book, image=image))

    def _put_book(self, book: Book) -> None:
        self._notes.put_note(_BOOK, msgspec.json.encode(book))
        self.book = book
