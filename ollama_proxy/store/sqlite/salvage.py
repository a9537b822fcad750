"""Salvage what can be read of a damaged state file: pure, from rows and bytes.

A launch on record costs money until it is stopped. So its id matters more than the rest
of its record: if nothing else can be read, the instance is assumed to exist and is
stopped.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from ollama_proxy.core.lifecycle.record import AT_REST, Fault, LaunchId, Record, State
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.core.ollama.listed_models import Tags

_OWNER = re.compile(rb"owner_id([0-9a-f]{16})(?![0-9a-f])")
_BACKEND = re.compile(rb"backend(exoscale|fly|ovh)(?![a-z])")
_KEYS_NEEDED = b"keys_neededyes"
_STATES = "|".join(state.value for state in State).encode()
_RECORD = re.compile(
    rb'\{"state":"(' + _STATES + rb')"[^{}]{0,200}?"launch_id":"(l[0-9a-f]{16})"'
)


def doomed(launch_id: LaunchId | None, now: float) -> Record:
    """Return the record that replaces an unreadable one.

    It stops the launch; without a launch id it is at rest.
    """
    if launch_id is None:
        return Record(since=now, last_used=now)
    message = "its record was damaged, so it is stopped"
    return Record(
        state=State.STOPPING,
        since=now,
        launch_id=launch_id,
        accepted=True,
        launched_at=now,
        last_used=now,
        fault=Fault("state", message),
    )


def read_record(raw: object) -> Record:
    """Return a record. Raises `ValueError` if it is invalid or contradicts itself."""
    if not isinstance(raw, bytes):
        raise ValueError(f"it is of type {type(raw).__name__}")  # noqa: TRY004 - one kind
    record = msgspec.json.decode(raw, type=Record)
    if record.launch_id is None and record.state not in AT_REST:
        raise ValueError(f"{record.state.value!r} without a launch")
    return record


def read_contents(raw: bytes) -> Snapshot:
    """Return an instance's answers about its models. Raises `ValueError`."""
    contents = msgspec.msgpack.decode(raw, type=Snapshot)
    msgspec.json.decode(contents.tags, type=Tags)
    for show in contents.shows.values():
        msgspec.json.decode(show, type=dict[str, msgspec.Raw])
    return contents


def launches_under_way(journal: Iterable[Sequence[object]]) -> dict[str, LaunchId]:
    """Return, by slot, the launches that have no end in a journal.

    A line is ``slot, launch_id, after``, oldest first.
    """
    found: dict[str, LaunchId] = {}
    for slot, launch_id, after in journal:
        if not isinstance(slot, str):
            continue
        if after in AT_REST:
            found.pop(slot, None)
        elif isinstance(launch_id, str):
            found[slot] = LaunchId(launch_id)
    return found


def owner_in(raw: bytes) -> str | None:
    """Return the owner id in the bytes of a file that can't be read otherwise."""
    found = _OWNER.search(raw)
    return found[1].decode() if found else None


def are_keys_needed_in(raw: bytes) -> bool:
    """Tell whether such bytes have the mark that keys are needed."""
    return _KEYS_NEEDED in raw


def backend_in(raw: bytes) -> str | None:
    """Return the one backend that such bytes name; None if there are more or none."""
    found = {match[1].decode() for match in _BACKEND.finditer(raw)}
    return found.pop() if len(found) == 1 else None


def offer_in(raw: bytes, launch_id: LaunchId) -> str | None:
    """Return the offer of a launch in such bytes: what its row begins with."""
    name, states = rb"[A-Za-z0-9][A-Za-z0-9_-]{0,39}?", _STATES
    row = rb"/[0-9]{1,4}/(" + name + rb")(?:" + states + rb")" + launch_id.encode()
    found = re.search(row, raw)
    return found[1].decode() if found else None


def launches_in(raw: bytes) -> list[LaunchId]:
    """Return the launches of the records in such bytes that may not have ended.

    SQLite leaves old versions of a row in the file, so there may be several.
    """
    found = (
        match for match in _RECORD.finditer(raw) if match[1].decode() not in AT_REST
    )
    return [LaunchId(name) for name in dict.fromkeys(m[2].decode() for m in found)]


def name_of_copy(name: str, now: float) -> str:
    """Return the name for the copy of a damaged file, which sorts by its age."""
    moment = datetime.fromtimestamp(now, UTC)
    return f"{name}.damaged-{moment:%Y%m%dT%H%M%S%fZ}"
