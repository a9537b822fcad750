"""The notes of launches: written before a call, and read from any former version."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ollama_proxy.backends.base.placement import Placement
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningJournal,
    ProvisioningRecord,
    read_record,
    unsent,
)
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    ConflictError,
    OutcomeUnknownError,
    TransientError,
)
from ollama_proxy.base.moments import EARLIEST
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.store.memory import MemoryNotes
from ollama_proxy.store.opening import open_store
from ollama_proxy.store.ports import Store
from ollama_proxy.store.state_folder import STATE_FILE

ONE = LaunchId("one")
NOW = EARLIEST + 300 * 86_400.0
SENT_AT = EARLIEST + 299 * 86_400.0
FORMER = Path(__file__).parent / "former"
"""State files that the code of former commits wrote; how: see its README.md."""


@pytest.fixture(params=["1386cdb", "before-one-base"])
def former(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Open a state folder that an older version has left."""
    with contextlib.closing(sqlite3.connect(tmp_path / STATE_FILE)) as database:
        database.executescript((FORMER / f"{request.param}.sql").read_text("utf-8"))
    with contextlib.closing(open_store(tmp_path)) as store:
        yield store


@pytest.mark.parametrize(
    ("noted", "read"),
    [
        (NOW - 100.0, NOW - 100.0),
        (60.0, NOW),  # of an older version, in 1970
        (NOW + 73 * 365 * 86_400.0, NOW),  # likewise, in 2099
        (None, None),
    ],
)
def test_a_call_at_a_moment_that_can_not_be_may_have_been_just_now(
    noted: float | None, read: float | None
) -> None:
    record = ProvisioningRecord("r", attempted_at=noted, started_at=noted)
    journal = ProvisioningJournal(MemoryNotes({ONE: msgspec.json.encode(record)}), NOW)
    kept = journal.get(ONE)

    assert kept is not None
    assert (kept.attempted_at, kept.started_at) == (read, read)


def test_purchases_of_a_former_version_are_known(former: Store) -> None:
    journal = ProvisioningJournal(former.notes_of("exoscale"), NOW)

    assert journal.get(LaunchId("lblank")) == unsent(Placement("at-vie-2", "gpu3"))
    assert journal.get(LaunchId("lsent")) == ProvisioningRecord(
        "at-vie-2", attempted_at=SENT_AT, type_name="gpu3"
    )
    assert journal.get(LaunchId("lparked")) == ProvisioningRecord(
        "ch-gva-2",
        attempted_at=SENT_AT,
        instance_id="i1",
        identity="lfirst",
        seen=True,
        served=True,
        type_name="gpua5000.small",
        operation_id="o1",
        standby=True,
        doomed=True,
    )
    assert set(journal.book.locations) == {"at-vie-2", "ch-gva-2", "de-fra-1"}
    assert journal.launches() == {"lblank", "lsent", "lparked"}
    assert journal.shown()["i1"] == "ch-gva-2"


@pytest.mark.parametrize("former", ["before-one-base"], indirect=True)
def test_what_a_former_version_was_shown_is_known(former: Store) -> None:
    journal = ProvisioningJournal(former.notes_of("exoscale"), NOW)

    assert journal.shown() == {"i1": "ch-gva-2", "i9": "de-fra-1"}


def test_apps_of_a_former_version_are_known(former: Store) -> None:
    journal = ProvisioningJournal(former.notes_of("ovh"), NOW)

    assert journal.get(LaunchId("lblank")) == ProvisioningRecord("GRA")
    assert journal.get(LaunchId("lruns")) == ProvisioningRecord(
        "BHS",
        attempted_at=SENT_AT,
        started_at=SENT_AT + 5.0,
        instance_id="a1",
        identity="lfirst",
        seen=True,
        seen_live=True,
        served=True,
    )
    assert journal.book.image == "ghcr.io/me/image:1"
    assert journal.book.locations == ("GRA", "BHS", "UK")
    assert journal.launches() == {"lblank", "lruns"}


def test_machines_of_a_former_version_are_known(former: Store) -> None:
    journal = ProvisioningJournal(former.notes_of("fly"), NOW)

    assert journal.get(LaunchId("lruns")) == ProvisioningRecord(
        "fra",
        attempted_at=SENT_AT,
        started_at=SENT_AT + 5.0,
        instance_id="m1",
        identity="lfirst",
        seen=True,
        seen_live=True,
    )
    assert journal.book.app == "myapp"
    assert journal.book.image == "registry.fly.io/a:1"


@pytest.mark.parametrize("former", ["before-one-base"], indirect=True)
def test_what_outlives_launches_of_a_former_version_is_known(former: Store) -> None:
    book = ProvisioningJournal(former.notes_of("fly"), NOW).book

    assert (book.volumes, book.volume) == (("v1", "v2"), "v1")
    assert book.addresses == ("1.2.3.4",)
    assert book.shown == {"m1": "myapp"}


def test_notes_of_a_former_version_are_written_anew_and_found_again(
    former: Store,
) -> None:
    notes = former.notes_of("exoscale")
    before = ProvisioningJournal(notes, NOW)
    before.note_shown({"i1": "ch-gva-2"})
    after = ProvisioningJournal(notes, NOW)

    assert after.book == before.book
    assert after.shown() == {"i1": "ch-gva-2"}  # what is gone does not come back
    assert notes.notes().keys() == {"book", "lblank", "lsent", "lparked"}


def test_a_record_is_read_as_it_was_written() -> None:
    written = ProvisioningRecord("GRA", 1.0, 2.0, "i", "l", type_name="t", doomed=True)

    assert read_record(msgspec.json.encode(written)) == written


@pytest.mark.parametrize(
    ("error", "is_noted"),
    [
        (OutcomeUnknownError("lost"), True),
        (CapacityError("full"), False),
        (TransientError("503"), False),
    ],
)
async def test_only_a_refusal_takes_back_the_note_of_a_creation(
    error: BackendError, is_noted: bool
) -> None:
    journal = ProvisioningJournal(MemoryNotes(), NOW)

    async def create() -> None:
        noted = journal.get(ONE)
        assert noted is not None
        assert noted.attempted_at == NOW  # on disk before the call
        raise error

    with pytest.raises(type(error)):
        await journal.create(ONE, ProvisioningRecord("r", attempted_at=NOW), create)
    record = journal.get(ONE)

    assert record is not None
    assert record.create_not_sent is not is_noted
    assert record.location == "r"


async def test_a_failure_that_refuses_another_call_leaves_the_note() -> None:
    journal = ProvisioningJournal(MemoryNotes(), NOW)

    async def create() -> None:
        raise ConflictError("the name is taken, perhaps by what was made before")

    sent = ProvisioningRecord("r", attempted_at=NOW)
    with pytest.raises(ConflictError):
        await journal.create(ONE, sent, create, is_refusal=lambda _: False)

    assert journal.get(ONE) == sent
