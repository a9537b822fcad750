"""How long the stages of past launches took, and what that says of the present one."""

import sqlite3
import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

_REMEMBERED = 20
_MOST_STAGES = 40


class StageLog(Protocol):
    """Where the stages of launches are remembered."""

    def add(self, offer: str, stages: Mapping[str, float]) -> None:
        """Remember the seconds of each stage of a launch, in order."""

    def launches(self, offer: str) -> list[dict[str, float]]:
        """Return those of the last launches of an offer, the oldest first."""


class StageHistory:
    """The stages of the last launches of each offer, on disk."""

    def __init__(
        self,
        db: sqlite3.Connection,
        writing: Callable[[], AbstractContextManager[sqlite3.Connection]],
    ) -> None:
        self._db = db
        self._writing = writing

    def add(self, offer: str, stages: Mapping[str, float]) -> None:
        """Remember a launch. Raises `StoreError`."""
        row = (offer, msgspec.json.encode(dict(stages)))
        with self._writing() as db:
            db.execute("INSERT INTO launch_stages VALUES (NULL, ?, ?)", row)
            db.execute(
                "DELETE FROM launch_stages WHERE offer = ? AND id NOT IN"
                " (SELECT id FROM launch_stages WHERE offer = ?"
                " ORDER BY id DESC LIMIT ?)",
                (offer, offer, _REMEMBERED),
            )

    def launches(self, offer: str) -> list[dict[str, float]]:
        """Return the last launches; a row that can't be read is left out."""
        query = "SELECT stages FROM launch_stages WHERE offer = ? ORDER BY id"
        found = []
        for (raw,) in self._db.execute(query, (offer,)).fetchall():
            try:
                stages = msgspec.json.decode(raw, type=dict[str, float])
            except (ValueError, TypeError):
                continue
            if len(stages) <= _MOST_STAGES and all(s >= 0 for s in stages.values()):
                found.append(stages)
        return found


class StageEstimates:
    """What past launches say of the rest of the present one, by its stage."""

    def __init__(self, history: StageLog) -> None:
        self._history = history
        self._launches: dict[str, list[dict[str, float]]] = {}

    def _of(self, offer: str) -> list[dict[str, float]]:
        if offer not in self._launches:
            self._launches[offer] = self._history.launches(offer)
        return self._launches[offer]

    def add(self, offer: str, stages: Mapping[str, float]) -> None:
        """Take in a launch that became ready. Raises `StoreError`."""
        launches = self._of(offer)
        launches.append(dict(stages))
        del launches[:-_REMEMBERED]
        self._history.add(offer, stages)

    def remaining_s(self, offer: str, stage: str, running_s: float) -> float | None:
        """Return how much longer a launch takes that is at ``stage`` for so long.

        That is the rest of this stage, which takes no longer than usual, and all that
        came after it: each the median of the launches that had such a stage. At least
        a second; None if there was none.
        """
        at = [one for one in self._of(offer) if stage in one]
        if not at:
            return None
        usual_s = statistics.median(one[stage] for one in at)
        later_s = statistics.median(_after(one, stage) for one in at)
        return max(1.0, max(0.0, usual_s - running_s) + later_s)


def _after(stages: Mapping[str, float], stage: str) -> float:
    names = list(stages)
    return sum(stages[name] for name in names[names.index(stage) + 1 :])
