"""What the instances of one place taught that no table and no list says."""

from typing import Protocol

import msgspec
import structlog

from ollama_proxy import log
from ollama_proxy.errors import StoreError


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

    def __init__(self, store: LessonStore) -> None:
        self._store = store
        self._log = structlog.get_logger()
        self.lessons = store.lessons()

    def save(self) -> None:
        """Write the lessons down; without a disk they hold for this process."""
        try:
            self._store.put_lessons(self.lessons)
        except StoreError as error:
            self._log.error(log.STORE_FAILED, error=str(error))
