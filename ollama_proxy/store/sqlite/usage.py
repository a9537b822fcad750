"""Keep what keys used: one row for each day, key and model."""

from collections.abc import Collection

import msgspec

from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.core.access.usage import UsageField, UsageRow
from ollama_proxy.store.sqlite.database import Table

_ADD = (
    "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (day, key_id, model) DO UPDATE SET key_name = excluded.key_name,"
    " requests = requests + excluded.requests,"
    " prompt_tokens = prompt_tokens + excluded.prompt_tokens,"
    " output_tokens = output_tokens + excluded.output_tokens,"
    " estimated = estimated + excluded.estimated,"
    " seconds = seconds + excluded.seconds, refused = refused + excluded.refused"
)


class SqliteUsage(Table):
    """Adds up what keys used."""

    def add_usage(self, rows: Collection[UsageRow]) -> None:
        """Add each row to the one of its day, key and model. Raises `StoreError`."""
        with self._db.writing() as db:
            db.executemany(_ADD, [msgspec.structs.astuple(row) for row in rows])

    def usage(
        self, since: str, key_id: KeyId | None, by: Collection[UsageField]
    ) -> list[UsageRow]:
        """Return sums since a day, of one key or of all. Raises `StoreError`."""
        day, model = (
            field.value if field in by else "''"
            for field in (UsageField.DAY, UsageField.MODEL)
        )
        key, name = ("key_id", "key_name") if UsageField.KEY in by else ("''", "''")
        # SQLite takes a bare column beside max() from the row that has the maximum: of
        # two names of a key that of the later day.
        query = (
            f"SELECT {day} AS d, {key} AS k, {name}, {model} AS m, sum(requests),"  # noqa: S608 - names of our schema
            " sum(prompt_tokens), sum(output_tokens), sum(estimated), sum(seconds),"
            " sum(refused), max(day) FROM usage WHERE day >= ?1"
            f"{'' if key_id is None else ' AND key_id = ?2'}"
            " GROUP BY d, k, m ORDER BY d, k, m"
        )
        values = (since,) if key_id is None else (since, key_id)
        with self._db.reading() as db:
            rows = db.execute(query, values).fetchall()
        return [UsageRow(*row[:-1]) for row in rows]

    def trim_usage(self, since: str, most: int) -> None:
        """Forget old days, and the oldest rows beyond ``most``. Raises `StoreError`."""
        with self._db.writing() as db:
            db.execute("DELETE FROM usage WHERE day < ?", (since,))
            (count,) = db.execute("SELECT count(*) FROM usage").fetchone()
            if count <= most:
                return
            db.execute(
                "DELETE FROM usage WHERE rowid IN (SELECT rowid FROM usage"
                " ORDER BY day DESC, key_id, model LIMIT -1 OFFSET ?)",
                (most,),
            )
