"""Where the proxy of a state folder listens, written down for the other commands.

It stands in the folder while the proxy serves. One that was killed leaves it behind:
it counts only while the process that wrote it has the folder.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

_NAME = "serving.json"
_LOCK = "lock"


class _Written(msgspec.Struct, frozen=True):
    """Where a proxy listens, as a client on this machine asks it, and its process."""

    url: str
    pid: int


@contextlib.contextmanager
def written_down(folder: Path, url: str) -> Iterator[None]:
    """Let others read where this process listens, as long as it does.

    For its owner's eyes. What can't be written is only missed by convenience.
    """
    path = folder / _NAME
    with contextlib.suppress(OSError):
        _write(path, msgspec.json.encode(_Written(url, os.getpid())))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(number, "wb") as file:
        file.write(data)
    fresh.replace(path)


def running_url(folder: Path) -> str | None:
    """Return where the proxy of a state folder listens; None if it is not known."""
    try:
        written = msgspec.json.decode((folder / _NAME).read_bytes(), type=_Written)
    except (OSError, msgspec.MsgspecError):
        return None
    is_ours = written.url.startswith("http://") and _has_folder(written.pid, folder)
    return written.url if is_ours else None


def _has_folder(pid: int, folder: Path) -> bool:
    """Tell whether a process holds the folder: it has the lock's file open.

    So another one that got the number of a killed one is not taken for it. Where that
    can't be looked at (another user's process), a process that lives will do.
    """
    try:
        lock = (folder / _LOCK).resolve()
        return any(Path(one.path) == lock for one in psutil.Process(pid).open_files())
    except psutil.AccessDenied:
        return True
    except (psutil.Error, OSError, ValueError):
        return False
