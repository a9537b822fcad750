"""Save the address where the proxy of a state folder listens, for other commands.

An agent of a hub saves its own, in another file. The file exists while the process
serves. A killed one leaves it behind, so it is valid only while the process that wrote
it has the lock file of the folder open. This module imports little, since the health
check uses it too.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ollama_proxy.base.private_file import write_private


class Files:
    """Names the file with the address, and the lock file of the process."""

    __slots__ = ("address", "lock")

    def __init__(self, address: str, lock: str) -> None:
        self.address = address
        self.lock = lock


OF_PROXY = Files("serving.json", "lock")
OF_AGENT = Files("node-serving.json", "node-lock")
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
    folder: Path, url: str, certificate: str = "", files: Files = OF_PROXY
) -> Iterator[Callable[[str], None]]:
    """Let other commands read where this process listens, as long as it does.

    Yields what to call with each new certificate, PEM. Only the owner can read the
    file. If it can't be written, the commands use the settings.
    """
    path = folder / files.address

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


def _privately(path: str, flags: int) -> int:
    """Open a file that only its owner may read, if it is not there yet."""
    return os.open(path, flags, 0o600)


@contextlib.contextmanager
def locked(folder: Path, files: Files) -> Iterator[None]:
    """Hold the lock file of a folder, as far as this user may write there."""
    try:
        lock = open(folder / files.lock, "ab", opener=_privately)  # noqa: SIM115 - held below
    except OSError:
        yield
        return
    with lock:
        yield


def running_proxy(folder: Path, files: Files = OF_PROXY) -> Running | None:
    """Return where the proxy of a state folder listens; None if it is not known."""
    try:
        written = json.loads((folder / files.address).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    match written:
        case {"url": str(url), "pid": int(pid)} if url.startswith(_SCHEMES):
            shown = written.get("certificate", "")
            running = Running(url, shown if isinstance(shown, str) else "")
            return running if _has_open(pid, folder / files.lock) else None
    return None


def _has_open(pid: int, lock: Path) -> bool:
    """Tell whether a process holds a folder: it has its lock file open.

    This excludes another process that got the same id after a proxy was killed. If its
    open files can't be read (another user's process), any living process counts.
    """
    try:
        return lock.resolve() in _open_files(pid)
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
