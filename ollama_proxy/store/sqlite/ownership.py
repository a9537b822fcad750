"""Keep whose instances these are: the owner id, and the backend that has them."""

import secrets
from collections.abc import Collection

from ollama_proxy.core.lifecycle.launch_limit import without_launch
from ollama_proxy.core.lifecycle.record import Record
from ollama_proxy.store.claim import Claim, check_claims, unnamed_slots
from ollama_proxy.store.sqlite.database import Database
from ollama_proxy.store.sqlite.records import SqliteRecords
from ollama_proxy.store.state_folder import read_owner, write_owner


class SqliteOwnership(SqliteRecords):
    """Keeps the owner id, and what the offers are that the records belong to."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._owner_id = ""

    @property
    def owner_id(self) -> str:
        """Return the id of this deployment."""
        return self._owner_id

    def read_owner_id(self) -> None:
        """Read the id of this deployment; draw one if the folder is new.

        A copy is kept in a file beside the database: without the id no instance could
        be found.
        """
        query = "SELECT value FROM meta WHERE key = 'owner_id'"
        row = self._db.execute(query).fetchone()
        kept = read_owner(self._db.folder)
        owner_id = str(row[0]) if row else kept or secrets.token_hex(8)
        if row is None:
            with self._db.writing() as db:
                db.execute("INSERT INTO meta VALUES ('owner_id', ?)", (owner_id,))
        if kept != owner_id:
            write_owner(self._db.folder, owner_id)
        self._owner_id = owner_id

    def take_over(self, owner_id: str) -> None:
        """Continue as another deployment; this one must have nothing left in the cloud.

        The file beside the database is written first: it is what counts if the row is
        lost.
        """
        write_owner(self._db.folder, owner_id)
        with self._db.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO meta VALUES ('owner_id', ?)", (owner_id,)
            )
        self._owner_id = owner_id

    def claims(self) -> dict[str, Claim]:
        """Return what is noted of the offers."""
        rows = self._db.execute("SELECT name, backend, costs, spec FROM offer")
        return {row[0]: Claim(row[0], row[1], bool(row[2]), row[3]) for row in rows}

    def claim(self, claims: Collection[Claim], slots: Collection[str]) -> None:
        """Assign the records to offers: see `check_claims`. Raises `StartupError`."""
        self._name_offer(next(iter(claims)).offer)
        kept = self.claims()
        for slot in check_claims(kept, self.launches(), claims, slots):
            self.put(slot, without_launch(self.get(slot) or Record()), None)
        if kept == {claim.offer: claim for claim in claims}:
            return  # so a full disk needs no write
        rows = [(one.offer, one.backend, one.costs, one.spec) for one in claims]
        with self._db.writing() as db:
            db.execute("DELETE FROM offer")
            db.executemany("INSERT INTO offer VALUES (?, ?, ?, ?)", rows)

    def _name_offer(self, offer: str) -> None:
        """Give an offer the records that name none."""
        rows = self._db.execute("SELECT slot FROM instance").fetchall()
        for slot, name in unnamed_slots([str(row[0]) for row in rows], offer):
            with self._db.writing() as db:
                for table in ("instance", "journal"):
                    db.execute(
                        f"UPDATE OR IGNORE {table} SET slot = ? WHERE slot = ?",  # noqa: S608 - ours
                        (name, slot),
                    )
