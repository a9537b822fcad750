"""Stores in memory with a fault: full, or ended before or after a write."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import Record
from ollama_proxy.core.ollama.lessons import Lessons
from ollama_proxy.store.memory import MemoryPlace, MemoryStore


class FaultyStore(MemoryStore):
    """Survives the proxy, not the test.

    ``is_full``: no record can be written. ``interrupt``: called before and after each
    write, with the moment in words; if it raises, the process ends there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False
        self.interrupt: Callable[[str], None] = lambda _where: None
        self.writes = 0
        self.reserve_s = 0.0

    def put(self, slot: str, record: Record, transition: Transition | None) -> None:
        if self.is_full:
            raise StoreError("the state can't be written: disk full")
        self.interrupt("before put")
        self.writes += 1
        super().put(slot, record, transition)
        self.interrupt("after put")

    async def reserve(self, slot: str, launch: Record, transition: Transition) -> None:
        """Write a launch; it may take ``reserve_s``, as it does over a network."""
        if self.reserve_s > 0:
            await asyncio.sleep(self.reserve_s)
        await super().reserve(slot, launch, transition)


@dataclass(slots=True)
class FaultyPlace(MemoryPlace):
    """A place whose lessons may find no room."""

    is_full: bool = False
    writes: int = 0

    def put_lessons(self, lessons: Lessons) -> None:
        if self.is_full:
            raise StoreError("the state can't be written: disk full")
        self.writes += 1
        MemoryPlace.put_lessons(self, lessons)
