"""Keep whose instances these are: the owner id, and the backend that has them."""

import secrets

from ollama_proxy.store.claim import check_claim
from ollama_proxy.store.sqlite.database import Database
from ollama_proxy.store.sqlite.records import SqliteRecords
from ollama_proxy.store.state_folder import read_owner, write_owner


class SqliteOwnership(SqliteRecords):
    """Keeps the owner id, and to which backend the records belong."""

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

    def claim(self, backend: str, *, costs: bool) -> None:
        """Assign the records to a backend; ``costs``: its instances outlive the proxy.

        Raises `StartupError` if a record names an instance of another backend, which
        would be forgotten and never stopped.
        """
        query = "SELECT value FROM meta WHERE key = 'backend'"
        row = self._db.execute(query).fetchone()
        before = None if row is None else str(row[0])
        check_claim(before, backend, self.launch_ids())
        if before == (backend if costs else None):
            return  # no write, which a full disk would refuse
        with self._db.writing() as db:
            db.execute("DELETE FROM meta WHERE key = 'backend'")
            if costs:
                db.execute("INSERT INTO meta VALUES ('backend', ?)", (backend,))
