"""Lock the state folder for one process, and close it to other users.

Members of the folder's group may access it if they can write there, or if new files
inherit its group: platforms that choose a user for each container share a volume this
way.
"""

import contextlib
import errno
import os
import re
import stat
from pathlib import Path
from typing import Final

import structlog
from filelock import FileLock, Timeout

from ollama_proxy.base import log
from ollama_proxy.base.environment import is_without_home
from ollama_proxy.base.errors import StartupError

STATE_FILE: Final = "state.sqlite3"
_LOCK = "lock"
_PID = "pid"
_OWNER = "owner"
_KEYS_NEEDED = "keys-needed"
_NODE_KEY_MADE = "node-key-made"
_OURS = (
    STATE_FILE,
    _LOCK,
    _PID,
    _OWNER,
    _KEYS_NEEDED,
    "authority",
    "hub",
    "node-",
    "ovhai",
    "serving.",
    "control.",
    "order-token",
)
_OWNER_ID = re.compile(r"[0-9a-f]{16}\n")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def take_folder(folder: Path) -> FileLock:
    """Take the folder for this process, or name its holder. Raises `StartupError`."""
    if is_without_home(folder):
        raise StartupError(
            "OLLAMA_PROXY_STATE_DIR: this user has no home folder to keep the state in;"
            " set it to a folder that lasts"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _close_to_others(folder)
        mode = file_mode(folder)
        lock = FileLock(folder / _LOCK, mode=mode)
        lock.acquire(timeout=0)
        _write_pid(folder / _PID, mode)
        _hide(folder, mode)
    except Timeout:
        raise StartupError(
            f"the state folder {str(folder)!r} is in use by process {_holder(folder)}; "
            "stop it, or set OLLAMA_PROXY_STATE_DIR to another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or "its file system knows no locks"
        raise StartupError(
            f"the state folder {str(folder)!r} can't be written ({why}); "
            "set OLLAMA_PROXY_STATE_DIR to a folder that can"
        ) from error
    return lock


def file_mode(folder: Path) -> int:
    """Return the rights that the files of the folder get."""
    return 0o660 if _is_for_group(folder.stat().st_mode) else 0o600


def make_private(path: Path, mode: int) -> None:
    """See that a file is there with these rights, whatever the umask is."""
    number = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    try:
        if os.fstat(number).st_uid == os.geteuid():
            os.fchmod(number, mode)
    finally:
        os.close(number)


def read_owner(folder: Path) -> str | None:
    """Return the owner id as it stands beside the state file, if it does."""
    try:
        text = (folder / _OWNER).read_text("ascii")
    except (OSError, ValueError):
        return None
    return text.strip() if _OWNER_ID.fullmatch(text) else None


def write_owner(folder: Path, owner_id: str) -> None:
    """Write the owner id beside the state file, if there is room."""
    with contextlib.suppress(OSError):
        make_private(folder / _OWNER, file_mode(folder))
        (folder / _OWNER).write_text(f"{owner_id}\n", "ascii")


def has_keys_mark(folder: Path) -> bool:
    """Tell whether it stands beside the state file that requests need a key."""
    return (folder / _KEYS_NEEDED).exists()


def write_keys_mark(folder: Path) -> None:
    """Write beside the state file that requests need a key, if there is room."""
    with contextlib.suppress(OSError):
        make_private(folder / _KEYS_NEEDED, file_mode(folder))


def has_node_keys_mark(folder: Path) -> bool:
    """Tell whether it stands beside the state file that a node had a key."""
    return (folder / _NODE_KEY_MADE).exists()


def write_node_keys_mark(folder: Path) -> None:
    """Write beside the state file that a node had a key, if there is room."""
    with contextlib.suppress(OSError):
        make_private(folder / _NODE_KEY_MADE, file_mode(folder))


def _is_for_group(mode: int) -> bool:
    return bool(mode & (stat.S_IWGRP | stat.S_ISGID))


def _close_to_others(folder: Path) -> None:
    """Remove the rights of others on a folder of ours alone; else log a warning.

    A folder with other files in it may be readable for their sake.
    """
    is_for_group = _is_for_group(folder.stat().st_mode)
    open_to = 0o007 if is_for_group else 0o077
    found = folder.stat()
    if not found.st_mode & open_to:
        return
    is_ours = found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX
    if is_ours and all(name.startswith(_OURS) for name in os.listdir(folder)):  # noqa: PTH208 - names alone
        folder.chmod(stat.S_IMODE(found.st_mode) & ~open_to)
    elif found.st_mode & 0o007:
        structlog.get_logger().warning(
            log.STATE_READABLE,
            folder=str(folder),
            reason="users of this machine can enter the state folder; run"
            f" `chmod o-rwx {folder}`, or set OLLAMA_PROXY_STATE_DIR to a folder of its"
            " own",
        )


def _write_pid(path: Path, mode: int) -> None:
    """Write the process id of the holder, or on a full disk an empty file."""
    make_private(path, mode)
    try:
        path.write_text(f"{os.getpid()}\n", "ascii")
    except OSError as error:
        if error.errno not in _FULL:
            raise


def _hide(folder: Path, mode: int) -> None:
    """Take from others what an earlier version let them read."""
    for path in folder.glob(f"{STATE_FILE}*"):
        if path.is_file():
            make_private(path, mode)


def _holder(folder: Path) -> str:
    try:
        return (folder / _PID).read_text("ascii").strip() or "unknown"
    except (OSError, ValueError):
        return "unknown"
