"""Write down what the instances of one place teach."""

import math
from typing import Final

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StoreError
from ollama_proxy.store.ports import LessonStore

_WRITE_EVERY_S: Final = 10.0


class LessonBook:
    """Keeps the lessons of one place, in memory and on disk."""

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
        """Read the lessons from disk again, after a change of the place."""
        self.lessons = self._store.lessons()

    def close(self) -> None:
        """Write unsaved lessons."""
        if self._is_unwritten:
            self.save()
