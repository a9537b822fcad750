"""Record what a backend knows about each launch: on disk before a cloud is called.

All clouds share one format of notes. Exoscale's former format is still read: a note per
purchase with its ``offer``, and the notes ``zones`` and ``shown``.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from ollama_proxy.backends.base.notes import read_note, read_notes
from ollama_proxy.backends.base.placement import Placement
from ollama_proxy.base.errors import BackendError, OutcomeUnknownError, StoreError
from ollama_proxy.base.moments import restored_moment
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Notes

_BOOK = LaunchId("book")
"""The name of the note on what belongs to no launch."""
_FORMER_ZONES = LaunchId("zones")
_FORMER_SHOWN = LaunchId("shown")

SETTLE_S = 150.0
"""After this time a call whose answer was lost can't be executed any more."""

_T = TypeVar("_T")


class ProvisioningRecord(msgspec.Struct, frozen=True):
    """Holds the notes of one launch. Moments are those of `Clock.now`.

    - ``type_name``: of the instance, for a cloud with several configured types.
    - ``attempted_at``: time of the last create call that may have succeeded.
    - ``started_at``: time of the last start call for a stopped instance.
    - ``instance_id``, ``operation_id``: from the response.
    - ``identity``: the launch whose token its guard expects.
    - ``seen``: the cloud has shown the instance once, so if it is missing it is gone.
    - ``seen_live``: it was shown running after the last start.
    - ``served``: it was ready once.
    - ``standby``: it is being stopped to stand by for the next launch.
    - ``doomed``: it must be gone before another one is created.
    """

    location: str = msgspec.field(name="region")
    attempted_at: float | None = None
    started_at: float | None = None
    instance_id: str | None = None
    identity: str | None = None
    seen: bool = False
    seen_live: bool = False
    served: bool = False
    type_name: str = ""
    operation_id: str | None = None
    standby: bool = msgspec.field(default=False, name="parked")
    doomed: bool = False

    @property
    def placement(self) -> Placement:
        """Return where it was asked for, and as what."""
        return Placement(self.location, self.type_name)

    @property
    def create_not_sent(self) -> bool:
        """Tell whether nothing was made: no call was sent, or it was refused."""
        return self.attempted_at is None and self.instance_id is None

    def create_may_arrive(self, now: float) -> bool:
        """Tell whether a create call without an answer may still be executed."""
        return self.attempted_at is not None and now - self.attempted_at < SETTLE_S

    def start_not_visible_yet(self, now: float) -> bool:
        """Tell whether the cloud may not yet show that an instance was started."""
        return not self.seen_live and now - self.begun_at < SETTLE_S

    def restored(self, now: float) -> "ProvisioningRecord":
        """Return it as a new process reads it: what can't have been was just now."""
        moments = {
            name: restored_moment(moment, now)
            for name in ("attempted_at", "started_at")
            if (moment := getattr(self, name)) is not None
        }
        return msgspec.structs.replace(self, **moments)

    @property
    def begun_at(self) -> float:
        """Return when the instance was last asked to run; 0 if that is unknown."""
        return self.started_at or self.attempted_at or 0.0


def unsent(placement: Placement) -> ProvisioningRecord:
    """Return the record of a launch without a create call, or after a refused one."""
    return ProvisioningRecord(placement.location, type_name=placement.type_name)


def read_record(note: bytes) -> ProvisioningRecord:
    """Return the record of a note, as it is written now, or was for Exoscale."""
    read = msgspec.json.decode(note, type=dict[str, Any])
    if isinstance(offer := read.pop("offer", None), dict):
        read |= {"region": offer.get("zone"), "type_name": offer.get("type_name")}
    return msgspec.convert(read, ProvisioningRecord)


class DeploymentNotes(msgspec.Struct, frozen=True):
    """Holds what outlives launches, such as the deployed image and all locations used.

    - ``app``: created by `deploy`, and so deleted by `delete`.
    - ``volumes``: created, and not seen deleted. ``volume``: the one that served last.
      ``volumes_app``: the app that has them.
    - ``addresses``: requested by `deploy`. ``address_asked``: the kind of one whose
      response is missing, ``addresses_before``: those that existed before that request.
    - ``shown``: the location of each thing that the cloud has shown, by id. Removed
      when the cloud states that the id does not exist.
    """

    image: str | None = None
    locations: tuple[str, ...] = msgspec.field(default=(), name="regions")
    app: str | None = None
    shown: dict[str, str] = {}
    volumes: tuple[str, ...] = ()
    volume: str | None = None
    volumes_app: str | None = None
    addresses: tuple[str, ...] = ()
    address_asked: str | None = None
    addresses_before: tuple[str, ...] = ()


class ProvisioningJournal:
    """Keeps the launches of a deployment in the notes, from `start` on."""

    def __init__(self, notes: Notes, now: float) -> None:
        self._notes = notes
        kept = notes.notes()
        self._former = kept.keys() & {_FORMER_ZONES, _FORMER_SHOWN}
        book = _read(kept, _BOOK, b"{}", DeploymentNotes) or DeploymentNotes()
        zones = _read(kept, _FORMER_ZONES, b"[]", tuple[str, ...]) or ()
        shown = _read(kept, _FORMER_SHOWN, b"{}", dict[str, str]) or {}
        read, self._damaged = read_notes(kept, read_record)
        self._records = {name: one.restored(now) for name, one in read.items()}
        used = [one.location for one in self._records.values()]
        locations = tuple(dict.fromkeys([*book.locations, *zones, *used]))
        self.book = msgspec.structs.replace(
            book, locations=locations, shown=shown | book.shown
        )
        for name in self._damaged:  # it may have been sent just now, to any location
            self._records[name] = ProvisioningRecord("", attempted_at=now)

    def get(self, launch_id: LaunchId) -> ProvisioningRecord | None:
        """Return the record of a launch."""
        return self._records.get(launch_id)

    def instance_ids(self) -> set[str]:
        """Return the instances of the launches that are known."""
        return {one.instance_id for one in self._records.values() if one.instance_id}

    def launches(self) -> set[LaunchId]:
        """Return every launch that is known."""
        return set(self._records)

    def launch_of(self, instance_id: str) -> LaunchId | None:
        """Return the launch that is known to have an instance."""
        found = (
            name
            for name, one in self._records.items()
            if one.instance_id == instance_id
        )
        return next(found, None)

    def shown(self, location: str | None = None) -> dict[str, str]:
        """Return the location of each thing that the cloud has shown, by id.

        ``location``: the single location of a cloud without locations.
        """
        noted = {
            one.instance_id: location or one.location
            for one in self._records.values()
            if one.instance_id and one.seen
        }
        return noted | self.book.shown

    def note_shown(self, shown: dict[str, str]) -> None:
        """Remember what the cloud has shown; a full disk keeps nothing from running."""
        with contextlib.suppress(StoreError):
            self.note(shown=shown)

    def put(self, launch_id: LaunchId, record: ProvisioningRecord) -> None:
        """Write a record; raises `StoreError` if it is not on disk afterwards.

        Its location is remembered only once something may exist there. A location that
        refused every call need not be checked, nor need a token, for ever.
        """
        known = self.book.locations
        if not record.create_not_sent and record.location not in known:
            self.note(locations=(*known, record.location))
        self._notes.put_note(launch_id, msgspec.json.encode(record))
        self._records[launch_id] = record
        self._damaged.discard(launch_id)

    def update(
        self, launch_id: LaunchId, **changes: float | bool | str
    ) -> ProvisioningRecord:
        """Change the record of a launch, as `put` does; return it."""
        changed = msgspec.structs.replace(self._records[launch_id], **changes)
        self.put(launch_id, changed)
        return changed

    async def create(
        self,
        launch_id: LaunchId,
        sent: ProvisioningRecord,
        call: Callable[[], Awaitable[_T]],
        *,
        is_refusal: Callable[[BackendError], bool] = lambda _: True,
    ) -> _T:
        """Record an attempt to create an instance, then make the one call that does.

        The record is taken back only by a failure which proves that nothing was
        created: not after an unknown outcome, nor after an error that is no refusal of
        this very call.
        """
        self.put(launch_id, sent)
        try:
            return await call()
        except OutcomeUnknownError:
            raise
        except BackendError as error:
            if is_refusal(error):
                self.put(launch_id, unsent(sent.placement))
            raise

    def note_look(self, launch_id: LaunchId, *, live: bool) -> None:
        """Record that the cloud showed an instance; ``live``: it is not stopped.

        A full disk is ignored here: the record prevents no running.
        """
        record = self._records[launch_id]
        if record.seen and (record.seen_live or not live):
            return
        with contextlib.suppress(StoreError):
            self.update(launch_id, seen=True, seen_live=live or record.seen_live)

    def note_found(self, launch_id: LaunchId, instance_id: str, *, live: bool) -> None:
        """Record the instance of a launch whose create call got no answer."""
        with contextlib.suppress(StoreError):
            self.update(launch_id, instance_id=instance_id)
            self.note_look(launch_id, live=live)

    def note_served(self, launch_id: LaunchId) -> None:
        """Remember that an instance was ready; a full disk silences no heartbeat."""
        if not self._records[launch_id].served:
            with contextlib.suppress(StoreError):
                self.update(launch_id, served=True)

    def has_other(self, launch_id: LaunchId, instance_id: str) -> bool:
        """Tell whether a launch is known to have another instance than this one."""
        record = self._records.get(launch_id)
        known = record.instance_id if record is not None else None
        return known is not None and known != instance_id

    def drop(self, launch_id: LaunchId) -> None:
        """Forget a launch of which nothing runs any more."""
        if launch_id in self._records or launch_id in self._damaged:
            self._notes.drop_note(launch_id)
            self._records.pop(launch_id, None)
            self._damaged.discard(launch_id)

    def note(self, **changes: str | tuple[str, ...] | dict[str, str] | None) -> None:
        """Change what outlives launches, as `put` does.

        Notes of a former format are then replaced by it.
        """
        book = msgspec.structs.replace(self.book, **changes)
        self._notes.put_note(_BOOK, msgspec.json.encode(book))
        self.book = book
        for name in sorted(self._former):
            self._notes.drop_note(name)
            self._former.discard(name)


def _read(
    kept: dict[LaunchId, bytes], name: LaunchId, default: bytes, kind: type[_T]
) -> _T | None:
    """Take one note that is no launch's; None if it can't be read."""

    def decode(note: bytes) -> _T:
        return msgspec.json.decode(note, type=kind)

    return read_note(name, kept.pop(name, default), decode)
