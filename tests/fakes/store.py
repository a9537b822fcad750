"""A store in memory that may be interrupted before or after each write."""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import LaunchId, Record
from ollama_proxy.store.lessons import Lessons


@dataclass(slots=True)
class MemoryStore:
    """What a proxy wrote down; survives the proxy, not the test."""

    records: dict[str, Record] = field(default_factory=dict)
    transitions: list[Transition] = field(default_factory=list)
    durations: dict[str, list[float]] = field(default_factory=dict)
    interrupt: Callable[[str], None] = lambda _where: None
    is_full: bool = False
    writes: int = 0

    def put(self, slot: str, record: Record, transition: Transition | None) -> None:
        if self.is_full:
            raise StoreError("the state can't be written: disk full")
        self.interrupt("before put")
        self.writes += 1
        self.records[slot] = record
        if transition is not None:
            self.transitions.append(transition)
        self.interrupt("after put")

    def get(self, slot: str) -> Record | None:
        return self.records.get(slot)

    def launch_ids(self) -> set[LaunchId]:
        return {r.launch_id for r in self.records.values() if r.launch_id is not None}

    def remembers(self, launch_id: LaunchId) -> bool:
        begun = {line.launch_id for line in self.transitions}
        return launch_id in begun | self.launch_ids()

    def add_launch(self, offer: str, duration_s: float) -> None:
        self.durations.setdefault(offer, []).append(duration_s)

    def launch_durations_s(self, offer: str) -> list[float]:
        return list(self.durations.get(offer, []))


@dataclass(slots=True)
class MemoryNotes:
    """A backend's notes; survive the backend, not the test."""

    kept: dict[LaunchId, bytes] = field(default_factory=dict)

    def notes(self) -> dict[LaunchId, bytes]:
        return dict(self.kept)

    def put_note(self, launch_id: LaunchId, note: bytes) -> None:
        self.kept[launch_id] = note

    def drop_note(self, launch_id: LaunchId) -> None:
        self.kept.pop(launch_id, None)


@dataclass(slots=True)
class MemoryLessons:
    """What a place taught; survives the book, not the test."""

    kept: Lessons = field(default_factory=Lessons)
    is_full: bool = False
    writes: int = 0

    def lessons(self) -> Lessons:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(self.kept), type=Lessons)

    def put_lessons(self, lessons: Lessons) -> None:
        if self.is_full:
            raise StoreError("the state can't be written: disk full")
        self.writes += 1
        raw = msgspec.msgpack.encode(lessons)
        self.kept = msgspec.msgpack.decode(raw, type=Lessons)
