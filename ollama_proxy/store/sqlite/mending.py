"""Replace unreadable records by what is known about their launches."""

import contextlib
from collections.abc import Mapping

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.slot_keys import SlotKey
from ollama_proxy.store.sqlite.database import Database
from ollama_proxy.store.sqlite.records import SqliteRecords
from ollama_proxy.store.sqlite.salvage import (
    doomed,
    launches_in,
    launches_under_way,
    read_record,
)


def mend(database: Database, records: SqliteRecords) -> None:
    """See that each launch that may have an instance has a record that stops it."""
    if database.opened.damage:
        database.report(f"the state file was damaged: {database.opened.damage}")
        _recall(database, records, database.opened.launches)
    rows = database.execute("SELECT slot, launch_id, record FROM instance")
    for slot, launch_id, raw in rows.fetchall():
        _mend_record(database, records, str(slot), launch_id, raw)


def _mend_record(
    database: Database,
    records: SqliteRecords,
    slot: str,
    launch_id: object,
    raw: object,
) -> None:
    named = LaunchId(launch_id) if isinstance(launch_id, str) else None
    try:
        record = read_record(raw)
        if record.launch_id == named or named is None:
            return
        why = f"it names the launch {record.launch_id}"
    except ValueError as error:
        why = str(error)
        if named is None and isinstance(raw, bytes):
            named = next(iter(launches_in(raw)), None)
    known = named or "none"
    what = f"the record of {slot!r} can't be read ({why}); its launch: {known}"
    database.report(f"{what}; {database.kept_copy()}")
    with contextlib.suppress(StoreError):
        records.put(slot, doomed(named, database.date()), None)


def _recall(
    database: Database, records: SqliteRecords, found: Mapping[str, str]
) -> None:
    """Restore the launches of a damaged file that was replaced.

    Each slot whose record is lost gets the launch that the journal shows as not ended,
    or else a launch whose record was found in the bytes of the file.
    """
    slots = {row[0] for row in database.execute("SELECT slot FROM instance")}
    journal = database.execute(
        "SELECT slot, launch_id, after FROM journal ORDER BY id"
    ).fetchall()
    recalled = launches_under_way(journal)
    known = {row[1] for row in journal} | records.launch_ids()
    unknown = [LaunchId(name) for name in found if name not in known]
    if unknown and not slots and not recalled:
        launch_id = unknown.pop()
        recalled = {str(SlotKey("default", 0, found[launch_id])): launch_id}
    for slot, launch_id in recalled.items():
        if slot not in slots:
            database.report(f"launch {launch_id} may have an instance: it is stopped")
            records.put(slot, doomed(launch_id, database.date()), None)
    if unknown:
        names = ", ".join(unknown)
        database.report(
            f"the damaged file names launches that may have ended: {names}; the"
            " sweep stops what is still there"
        )
