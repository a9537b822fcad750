"""Keep how long the last launches of each offer took, whole and by stage."""

from collections.abc import Mapping
from typing import Final

import msgspec

from ollama_proxy.store.ports import REMEMBERED
from ollama_proxy.store.sqlite.database import Table

_MOST_STAGES: Final = 40


class SqliteLaunches(Table):
    """Remembers how long launches took from wake to ready."""

    def add_launch(self, offer: str, duration_s: float) -> None:
        """Remember how long a launch took from wake to ready. Raises `StoreError`."""
        with self._db.writing() as db:
            db.execute("INSERT INTO launch VALUES (NULL, ?, ?)", (offer, duration_s))
            db.execute(
                "DELETE FROM launch WHERE offer = ? AND id NOT IN"
                " (SELECT id FROM launch WHERE offer = ? ORDER BY id DESC LIMIT ?)",
                (offer, offer, REMEMBERED),
            )

    def launch_durations_s(self, offer: str) -> list[float]:
        """Return how long the last launches of an offer took, the oldest first."""
        rows = self._db.execute(
            "SELECT duration_s FROM launch WHERE offer = ? AND duration_s >= 0"
            " AND typeof(duration_s) = 'real' ORDER BY id",
            (offer,),
        )
        return [float(row[0]) for row in rows]

    @property
    def stages(self) -> "SqliteStages":
        """Return what is known of the stages of launches."""
        return SqliteStages(self._db)


class SqliteStages(Table):
    """Remembers how long the stages of launches took."""

    def add(self, offer: str, stages: Mapping[str, float]) -> None:
        """Remember a launch. Raises `StoreError`."""
        row = (offer, msgspec.json.encode(dict(stages)))
        with self._db.writing() as db:
            db.execute("INSERT INTO launch_stages VALUES (NULL, ?, ?)", row)
            db.execute(
                "DELETE FROM launch_stages WHERE offer = ? AND id NOT IN"
                " (SELECT id FROM launch_stages WHERE offer = ?"
                " ORDER BY id DESC LIMIT ?)",
                (offer, offer, REMEMBERED),
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
