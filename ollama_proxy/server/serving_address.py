"""Save the address where the proxy of a state folder listens, for other commands.

The file exists while the proxy serves. A killed proxy leaves it behind, so it is valid
only while the process that wrote it holds the folder. This module imports little, since
the health check uses it too.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

_NAME = "serving.json"
_LOCK = "lock"
_PROCESSES = Path("/proc")


@contextlib.contextmanager
def written_down(folder: Path, url: str) -> Iterator[None]:
    """Let other commands read where this process listens, as long as it does.

    Only the owner can read the file. If it can't be written, the commands use the
    settings.
    """
    path = folder / _NAME
    with contextlib.suppress(OSError):
        _write(path, json.dumps({"url": url, "pid": os.getpid()}).encode())
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
        written = json.loads((folder / _NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    match written:
        case {"url": str(url), "pid": int(pid)} if url.startswith("http://"):
            return url if _has_folder(pid, folder) else None
    return None


def _has_folder(pid: int, folder: Path) -> bool:
    """Tell whether a process holds the folder: it has the lock file open.

    This excludes another process that got the same id after a proxy was killed. If its
    open files can't be read (another user's process), any living process counts.
    """
    try:
        lock = (folder / _LOCK).resolve()
        return lock in _open_files(pid)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False


def _open_files(pid: int) -> Iterator[Path]:
    """Yield the open files of a process. Raises `OSError` if it does not exist."""
    own = _PROCESSES / "self" / "fd"
    if own.is_dir():
        for one in (_PROCESSES / str(pid) / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed in the meantime
                yield one.readlink()
        return
    import psutil  # noqa: PLC0415 - slow to import, and only where there is no /proc

    try:
        yield from (Path(one.path) for one in psutil.Process(pid).open_files())
    except psutil.AccessDenied as error:
        raise PermissionError from error
    except psutil.Error as error:
        raise ProcessLookupError from error
