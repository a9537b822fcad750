"""The state folder: its owner, its readers, and a machine without room."""

import errno
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock
from structlog.testing import LogCapture

from ollama_proxy.base import log
from ollama_proxy.base.errors import StartupError, StoreError
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.black_box import clean_environment
from tests.slots import SLOT


@pytest.fixture(autouse=True)
def ordinary_umask() -> Iterator[None]:
    """Let the process have the umask of most users."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_and_its_files_are_for_us_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "state"
    with closing(SqliteStore(folder)) as store:
        store.put(SLOT, Record(), None)
        modes = {path.name: mode_of(path) for path in folder.iterdir()}

        assert mode_of(folder) == 0o700
        assert set(modes.values()) == {0o600}
        assert {"state.sqlite3", "state.sqlite3-wal", "pid", "lock"} <= set(modes)


def test_what_an_earlier_version_let_others_read_is_closed(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    tmp_path.chmod(0o755)
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    SqliteStore(tmp_path).close()

    assert mode_of(tmp_path) == 0o700
    assert mode_of(tmp_path / "state.sqlite3") == 0o600
    assert mode_of(tmp_path / "pid") == 0o600


@pytest.mark.parametrize(
    ("before", "after"), [(0o770, 0o770), (0o2750, 0o2750), (0o775, 0o770)]
)
def test_a_group_that_is_meant_to_have_the_folder_keeps_it(
    tmp_path: Path, before: int, after: int
) -> None:
    tmp_path.chmod(before)
    SqliteStore(tmp_path).close()

    assert mode_of(tmp_path) == after
    assert mode_of(tmp_path / "state.sqlite3") == 0o660


def test_a_folder_with_other_things_stays_open_for_them_and_is_told_of(
    tmp_path: Path, errors_logged: LogCapture
) -> None:
    (tmp_path / "page.html").write_text("")
    tmp_path.chmod(0o755)
    SqliteStore(tmp_path).close()

    assert mode_of(tmp_path) == 0o755
    assert mode_of(tmp_path / "state.sqlite3") == 0o600
    assert [entry["event"] for entry in errors_logged.entries] == [log.STATE_READABLE]


@pytest.mark.parametrize(("mode", "is_told"), [(0o757, True), (0o770, False)])
def test_a_folder_of_another_stays_as_it_is(
    tmp_path: Path,
    mode: int,
    is_told: bool,
    errors_logged: LogCapture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tmp_path.chmod(mode)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    SqliteStore(tmp_path).close()

    assert mode_of(tmp_path) == mode
    assert bool(errors_logged.entries) == is_told


def test_a_shared_folder_for_everybody_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    SqliteStore(tmp_path).close()

    assert mode_of(tmp_path) == 0o1777


def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    with pytest.raises(StartupError, match="its file system knows no locks"):
        SqliteStore(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe"])
def test_a_holder_that_can_not_be_read_is_unknown(
    tmp_path: Path, content: bytes
) -> None:
    with closing(SqliteStore(tmp_path)):
        (tmp_path / "pid").write_bytes(content)
        with pytest.raises(StartupError, match="is in use by process unknown"):
            SqliteStore(tmp_path)


def test_a_pid_that_finds_no_room_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)

    SqliteStore(tmp_path).close()


_IN_LITTLE_ROOM = """\
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
from ollama_proxy.base.errors import ProxyError
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from tests.slots import SLOT
from ollama_proxy.store.sqlite.store import SqliteStore
try:
    store = SqliteStore(Path(sys.argv[1]))
    print(sorted(store.launch_ids()), store.owner_id)
    store.put(SLOT, Record(State.STARTING, launch_id=LaunchId("l2")), None)
    print("written")
except ProxyError as error:
    print(type(error).__name__, error)
"""


def in_little_room(folder: Path, room: int) -> list[str]:
    """Return what a process says that may write files of so many bytes."""
    done = subprocess.run(
        [sys.executable, "-c", _IN_LITTLE_ROOM, str(folder), str(room)],
        # Python 3.11 does not notice that a compiled module was written in part, and
        # every later process fails to load it: "marshal data too short".
        env=clean_environment(PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize("room", [0, 1000, 20_000])
def test_a_first_start_without_room_names_the_setting(
    tmp_path: Path, room: int
) -> None:
    told = in_little_room(tmp_path / "state", room)

    assert len(told) == 1
    assert told[0].startswith(("StartupError the state", "StoreError the state"))
    assert "OLLAMA_PROXY_STATE_DIR" in told[0]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize("room", [0, 1000])
def test_an_instance_is_known_without_room_and_nothing_new_is_begun(
    tmp_path: Path, room: int
) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        owner_id = store.owner_id
        store.put(SLOT, Record(State.READY, launch_id=LaunchId("l1")), None)
    told = in_little_room(tmp_path, room)

    assert told[0] == f"['l1'] {owner_id}"
    assert told[1].startswith("StoreError the state can't be written")


class FullDatabase:
    """A database whose disk is full."""

    def __enter__(self) -> "FullDatabase":
        raise sqlite3.OperationalError("database or disk is full")

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def test_what_finds_no_room_is_a_sentence_with_the_setting(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store._db.close()
    store._db._db = FullDatabase()  # type: ignore[assignment]  # a stand-in
    with pytest.raises(StoreError, match=r"is full; no instance is started.*STATE_DIR"):
        store.put(SLOT, Record(), None)
    store.close()
