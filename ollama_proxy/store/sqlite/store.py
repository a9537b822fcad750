"""Store what must outlive the process in one SQLite file in the state folder.

It holds the owner id, the record of every slot (the intended and known state of its
instance), a journal of transitions, the catalogues, durations of launches, the models
that clients added, the keys of clients and nodes, what clients used, the nodes of the
hub, and the audit. Writes are synchronous and few. A record is on disk before its cloud
is called; if the write fails, the call is not made.
"""

from pathlib import Path

from ollama_proxy.store.ports import JOURNAL_LINES
from ollama_proxy.store.sqlite.audit import SqliteAudit
from ollama_proxy.store.sqlite.commitments import SqliteCommitments
from ollama_proxy.store.sqlite.database import Database
from ollama_proxy.store.sqlite.history import SqliteLaunches
from ollama_proxy.store.sqlite.journal import SqliteJournal
from ollama_proxy.store.sqlite.keys import SqliteKeys
from ollama_proxy.store.sqlite.mending import mend
from ollama_proxy.store.sqlite.models import SqliteModels
from ollama_proxy.store.sqlite.node_keys import SqliteNodeKeys
from ollama_proxy.store.sqlite.nodes import SqliteNodes
from ollama_proxy.store.sqlite.notes import SqliteNotes
from ollama_proxy.store.sqlite.ownership import SqliteOwnership
from ollama_proxy.store.sqlite.places import SqlitePlaces
from ollama_proxy.store.sqlite.usage import SqliteUsage
from ollama_proxy.store.state_folder import take_folder


class SqliteStore(
    SqliteOwnership,
    SqliteJournal,
    SqliteLaunches,
    SqliteModels,
    SqlitePlaces,
    SqliteNotes,
    SqliteKeys,
    SqliteNodeKeys,
    SqliteNodes,
    SqliteAudit,
    SqliteUsage,
    SqliteCommitments,
):
    """Keeps the state of one deployment, by all ports of `ollama_proxy.store.ports`."""

    def __init__(self, folder: Path, *, journal_lines: int = JOURNAL_LINES) -> None:
        self._lock = take_folder(folder)
        try:
            database = Database(folder, journal_lines)
        except BaseException:
            self._lock.release()
            raise
        super().__init__(database)
        try:
            mend(database, self)
            self.read_owner_id()
        except BaseException:
            self.close()
            raise

    @property
    def problem(self) -> str | None:
        """Return why the last write failed, until one succeeds again."""
        return self._db.problem

    @property
    def damage(self) -> list[str]:
        """Return what an earlier process left that could not be read, in words."""
        return self._db.damage

    def close(self) -> None:
        """Close the file and let another process have the folder."""
        self._db.close()
        self._lock.release()
