"""What the instances of one place taught that no table and no list says."""

import math
from typing import Final, Protocol

import msgspec
import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StoreError

_WRITE_EVERY_S: Final = 10.0


class Lessons(msgspec.Struct):
    """What was learnt.

    ``routes``: those outside of Ollama's table that an instance answered, as
    ``METHOD /path``. The rest is of models by full names, none of them in the list of
    models: ``woken``, for which an instance was woken that is not up yet; ``absent``,
    which are not there as long as the list is ``list_id``; ``served``, which were
    answered all the same. ``wakes``: when such names last caused launches, in epoch
    seconds.
    """

    routes: list[str] = []
    list_id: str = ""
    woken: list[str] = []
    absent: list[str] = []
    served: list[str] = []
    wakes: list[float] = []


class LessonStore(Protocol):
    """The part of a place that remembers lessons."""

    def lessons(self) -> Lessons:
        """Return what was learnt so far."""

    def put_lessons(self, lessons: Lessons) -> None:
        """Write what was learnt. Raises `StoreError`."""


class LessonBook:
    """The lessons of one place, in memory and on disk."""

    def __init__(self, store: LessonStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._written_at = -math.inf
        self._is_unwritten = False
        self._log = structlog.get_logger()
        self.lessons = store.lessons()

    def save(self) -> None:
        """Write the lessons down; without a disk they hold for this process."""
        self._written_at, self._is_unwritten = self._clock.now(), False
        try:
            self._store.put_lessons(self.lessons)
        except StoreError as error:
            self._log.error(log.STORE_FAILED, error=str(error))

    def save_soon(self) -> None:
        """Write down what clients can cause as often as they like, now and then."""
        self._is_unwritten = True
        if abs(self._clock.now() - self._written_at) >= _WRITE_EVERY_S:
            self.save()

    def reread(self) -> None:
        """Go by what the disk has: its place is another one now."""
        self.lessons = self._store.lessons()

    def close(self) -> None:
        """Write down what is not yet."""
        if self._is_unwritten:
            self.save()
