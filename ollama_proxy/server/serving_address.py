"""Save the address where the proxy of a state folder listens, for other commands.

The file exists while the proxy serves. A killed proxy leaves it behind, so it is valid
only while the process that wrote it holds the folder. This module imports little, since
the health check uses it too.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ollama_proxy.base.private_file import write_private

_NAME = "serving.json"
_LOCK = "lock"
_SCHEMES = ("http://", "https://")
_PROCESSES = Path("/proc")


class Running:
    """Holds where a proxy listens, and the PEM certificate that it shows, if any.

    It is a plain class: the module `typing` takes long to import.
    """

    __slots__ = ("certificate", "url")

    def __init__(self, url: str, certificate: str = "") -> None:
        self.url = url
        self.certificate = certificate


@contextlib.contextmanager
def written_down(
    folder: Path, url: str, certificate: str = ""
) -> Iterator[Callable[[str], None]]:
    """Let other commands read where this process listens, as long as it does.

    Yields what to call with each new certificate, PEM. Only the owner can read the
    file. If it can't be written, the commands use the settings.
    """
    path = folder / _NAME

    def write(certificate: str) -> None:
        told = {"url": url, "pid": os.getpid()}
        if certificate:
            told["certificate"] = certificate
        with contextlib.suppress(OSError):
            write_private(path, json.dumps(told).encode())

    write(certificate)
    try:
        yield write
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def running_proxy(folder: Path) -> Running | None:
    """Return where the proxy of a state folder listens; None if it is not known."""
    try:
        written = json.loads((folder / _NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    match written:
        case {"url": str(url), "pid": int(pid)} if url.startswith(_SCHEMES):
            shown = written.get("certificate", "")
            running = Running(url, shown if isinstance(shown, str) else "")
            return running if _has_folder(pid, folder) else None
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
