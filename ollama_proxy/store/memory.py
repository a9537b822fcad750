"""Keep the state in memory: for tests, and wherever nothing has to last."""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from ollama_proxy.base.clock import Marking
from ollama_proxy.base.moments import Mark
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.launch_limit import without_launch
from ollama_proxy.core.lifecycle.record import LaunchId, Record
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.core.ollama.lessons import Lessons
from ollama_proxy.core.restore_plan import StickyModel
from ollama_proxy.store.claim import Claim, check_claims, unnamed_slots
from ollama_proxy.store.memory_commitments import MemoryCommitments
from ollama_proxy.store.memory_node_keys import MemoryNodeKeys
from ollama_proxy.store.memory_nodes import MemoryNodes
from ollama_proxy.store.memory_usage import MemoryUsage
from ollama_proxy.store.ports import JOURNAL_LINES, PLACES, REMEMBERED


@dataclass(slots=True)
class MemoryNotes:
    """Holds the notes of one backend."""

    kept: dict[LaunchId, bytes] = field(default_factory=dict)

    def notes(self) -> dict[LaunchId, bytes]:
        """Return every note."""
        return dict(self.kept)

    def put_note(self, launch_id: LaunchId, note: bytes) -> None:
        """Write a note."""
        self.kept[launch_id] = note

    def drop_note(self, launch_id: LaunchId) -> None:
        """Forget a note."""
        self.kept.pop(launch_id, None)


@dataclass(slots=True)
class MemoryStages:
    """Holds how long the stages of the last launches of each offer took."""

    kept: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def add(self, offer: str, stages: Mapping[str, float]) -> None:
        """Remember the seconds of each stage of a launch, in order."""
        launches = self.kept.setdefault(offer, [])
        launches.append(dict(stages))
        del launches[:-REMEMBERED]

    def launches(self, offer: str) -> list[dict[str, float]]:
        """Return the stages of the last launches of an offer, the oldest first."""
        return [dict(stages) for stages in self.kept.get(offer, [])]


@dataclass(slots=True)
class MemoryPlace:
    """Holds what is known about the models of one place, by its present ``name``.

    ``rows``: one entry per place, the last written at the end.
    """

    name: str = "here"
    rows: dict[str, tuple[Snapshot | None, Lessons]] = field(default_factory=dict)

    def contents(self) -> Snapshot | None:
        """Return the answers of the newest instance; None before the first."""
        return self._row()[0]

    def put_contents(self, contents: Snapshot) -> None:
        """Write the answers of the newest instance."""
        self._put(contents, self._row()[1])

    def lessons(self) -> Lessons:
        """Return the lessons so far."""
        return _copied(self._row()[1])

    def put_lessons(self, lessons: Lessons) -> None:
        """Write the lessons."""
        self._put(self._row()[0], _copied(lessons))

    def _row(self) -> tuple[Snapshot | None, Lessons]:
        return self.rows.get(self.name, (None, Lessons()))

    def _put(self, contents: Snapshot | None, lessons: Lessons) -> None:
        """Write the row, and forget the places that were written long ago."""
        self.rows.pop(self.name, None)
        self.rows[self.name] = (contents, lessons)
        while len(self.rows) > PLACES:
            del self.rows[next(iter(self.rows))]


def _copied(lessons: Lessons) -> Lessons:
    """Return lessons that do not change with those that were handed in."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(lessons), type=Lessons)


class MemoryStore(MemoryNodeKeys, MemoryNodes, MemoryUsage, MemoryCommitments):
    """Holds the state of one deployment, by all ports of `ollama_proxy.store.ports`."""

    def __init__(self, *, journal_lines: int = JOURNAL_LINES) -> None:
        super().__init__()
        self._journal_lines = journal_lines
        self.problem: str | None = None
        self.damage: list[str] = []
        self.owner_id = secrets.token_hex(8)
        self.records: dict[str, Record] = {}
        self.transitions: list[Transition] = []
        self.durations: dict[str, list[float]] = {}
        self.stages = MemoryStages()
        self._models: dict[str, StickyModel] = {}
        self._notes: dict[str, MemoryNotes] = {}
        self._places: dict[str, tuple[Snapshot | None, Lessons]] = {}
        self._claims: dict[str, Claim] = {}
        self._mark: Mark | None = None
        self._clock: Marking | None = None

    def drop_key(self, key_id: KeyId, line: AuditLine) -> None:
        """Forget a key with its commitments and write its line."""
        super().drop_key(key_id, line)
        self.drop_commitments(key_id)

    def get(self, slot: str) -> Record | None:
        """Return the record of a slot; None if it never had one."""
        return self.records.get(slot)

    def put(self, slot: str, record: Record, transition: Transition | None) -> None:
        """Write a record, and its line of the journal if the state changed."""
        self.put_mark()
        self.records[slot] = record
        if transition is not None:
            self.add_line(transition)

    async def reserve(self, slot: str, launch: Record, transition: Transition) -> None:
        """Write a launch that is about to begin."""
        self.put(slot, launch, transition)

    def launch_ids(self) -> set[LaunchId]:
        """Return every launch that a record names."""
        return set(self.launches().values())

    def remembers(self, launch_id: LaunchId) -> bool:
        """Tell whether a launch is on record, or ever was."""
        begun = {line.launch_id for line in self.transitions}
        return launch_id in begun | self.launch_ids()

    def forget(self, launch_ids: Collection[LaunchId]) -> None:
        """Remove launches that have ended from every record."""
        for slot, record in list(self.records.items()):
            if record.launch_id in launch_ids:
                self.put(slot, without_launch(record), None)

    def journal(self, limit: int = 50) -> list[Transition]:
        """Return the newest lines, newest first."""
        return self.transitions[::-1][:limit]

    def add_line(self, line: Transition) -> None:
        """Write a line that changes no record."""
        self.transitions.append(line)
        del self.transitions[: -self._journal_lines]

    def add_launch(self, offer: str, duration_s: float) -> None:
        """Remember how long a launch took from wake to ready."""
        durations_s = self.durations.setdefault(offer, [])
        durations_s.append(duration_s)
        del durations_s[:-REMEMBERED]

    def launch_durations_s(self, offer: str) -> list[float]:
        """Return how long the last launches of an offer took, the oldest first."""
        return list(self.durations.get(offer, []))

    def sticky_models(self) -> list[StickyModel]:
        """Return every model that is remembered, by name."""
        return [self._models[name] for name in sorted(self._models)]

    def put_sticky(self, model: StickyModel) -> None:
        """Remember a model, in place of one of its name."""
        self._models[model.name] = model

    def drop_sticky(self, name: str) -> None:
        """Forget a model."""
        self._models.pop(name, None)

    def place(self, name: str) -> MemoryPlace:
        """Return what is known of the models of one place."""
        return MemoryPlace(name, self._places)

    def notes_of(self, backend: str) -> MemoryNotes:
        """Return the notes of one backend; no other sees them."""
        return self._notes.setdefault(backend, MemoryNotes())

    def mark(self) -> Mark | None:
        """Return the last mark, if there is one."""
        return self._mark

    def mark_with(self, clock: Marking) -> None:
        """Write a mark of this clock now, and with each record from now on."""
        self._clock = clock
        self.put_mark()

    def put_mark(self) -> None:
        """Write a mark of the clock, if there is one."""
        if self._clock is not None:
            self._mark = self._clock.mark()

    def take_over(self, owner_id: str) -> None:
        """Go on as another deployment: nothing of our own may be left."""
        self.owner_id = owner_id

    def claims(self) -> dict[str, Claim]:
        """Return what is noted of the offers."""
        return dict(self._claims)

    def launches(self) -> dict[str, LaunchId]:
        """Return the launches on record, by their slots."""
        return {
            slot: record.launch_id
            for slot, record in self.records.items()
            if record.launch_id is not None
        }

    def claim(self, claims: Collection[Claim], slots: Collection[str]) -> None:
        """Assign the records to offers: see `check_claims`."""
        first = next(iter(claims)).offer
        for slot, name in unnamed_slots(list(self.records), first):
            self.records.setdefault(name, self.records.pop(slot))
        for slot in check_claims(self._claims, self.launches(), claims, slots):
            self.put(slot, without_launch(self.records[slot]), None)
        self._claims = {claim.offer: claim for claim in claims}

    def close(self) -> None:
        """Leave the store as it is: nothing has to be closed."""
