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
        """Read the id of this deployment; it is drawn if the folder is new.

        It also stands in a file of its own: without it no instance is found.
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
        """Go on as another deployment: nothing of our own may be left.

        The file beside is written first: what it says counts where the row is lost.
        """
        write_owner(self._db.folder, owner_id)
        with self._db.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO meta VALUES ('owner_id', ?)", (owner_id,)
            )
        self._owner_id = owner_id

    def claim(self, backend: str, *, costs: bool) -> None:
        """Let the records belong to a backend; ``costs``: its instances outlive us.

        Raises `StartupError` if a record names an instance of another backend: it
        would be forgotten, and never stopped.
        """
        query = "SELECT value FROM meta WHERE key = 'backend'"
        row = self._db.execute(query).fetchone()
        before = None if row is None else str(row[0])
        check_claim(before, backend, self.launch_ids())
        if before == (backend if costs else None):
            return  # a disk that is full needs no write
        with self._db.writing() as db:
            db.execute("DELETE FROM meta WHERE key = 'backend'")
            if costs:
                db.execute("INSERT INTO meta VALUES ('backend', ?)", (backend,))
