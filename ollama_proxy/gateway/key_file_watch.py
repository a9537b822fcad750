"""Take the keys of a file, and take them again when it changes."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StartupError, StoreError
from ollama_proxy.core.access.keys import Caller, Key
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.gateway.key_file import KeyFileError, read_key_file
from ollama_proxy.gateway.key_words import Dates
from ollama_proxy.gateway.keyring import Keyring

LOOK_EVERY_S = 1.0
_DATE_STEP_S = 60.0
_TOLD = 5


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Holds what changes when a file does: its inode, size, times and rights.

    ``ahead``: how far the date is ahead of the clock, in minutes; dates in the file are
    read by it. ``fields``: empty if the file can't be found.
    """

    fields: tuple[int, ...] = ()
    ahead: int = 0


class KeyFileWatch:
    """Keeps the keys of one file in the keyring.

    A file that can't be used any more changes nothing: the last good keys are taken,
    and `problem` says why. Raises `StartupError` if it can't be used at the start.
    """

    def __init__(
        self, path: Path, keyring: Keyring, clock: Clock, audit: Audit
    ) -> None:
        self._audit = audit
        self._path = path
        self._keyring = keyring
        self._clock = clock
        self._log = structlog.get_logger()
        self._stamp = self._latest = self._look()
        self._fault = ""
        self._told = ""
        self._skipped: tuple[Key, ...] = ()
        try:
            self._held = read_key_file(path, self._dates)
        except KeyFileError as error:
            raise StartupError(str(error)) from error
        self._take()
        try:
            keyring.need_keys()
        except StoreError as error:
            self._log.warning(log.STORE_FAILED, reason=str(error))

    @property
    def problem(self) -> str | None:
        """Return in a sentence why not all keys of the file are taken as it has them.

        None if they are.
        """
        if self._fault:
            count = len(self._held.keys)
            return f"{self._fault}; what it had before, {count} in number, stays valid"
        if self._skipped:
            names = ", ".join(key.name for key in self._skipped[:_TOLD])
            return (
                f"keys of {str(self._path)!r} are not taken, since stored keys have the"
                f" same name or text: {names}; `ollama-proxy key rm` those, or change"
                " the ones in the file"
            )
        return None

    @property
    def warning(self) -> str:
        """Return what is unsafe about the file; "" if nothing is."""
        return self._held.warning

    def body(self) -> dict[str, Any]:
        """Return what ``/status`` says of the file."""
        taken = len(self._held.keys) - len(self._skipped)
        problem = self.problem or self.warning or None
        return {"path": str(self._path), "keys": taken, "problem": problem}

    async def run(self, every_s: float = LOOK_EVERY_S) -> None:
        """Look at the file again and again, until cancelled."""
        self._tell()
        while True:
            await asyncio.sleep(every_s)
            await self.look()

    async def look(self) -> None:
        """Read the file again if it has changed, but is as the last look found it.

        So a file that is being written is read when it is whole.
        """
        # A network file system may take long: not in the event loop.
        latest = await asyncio.to_thread(self._look)
        is_settled, self._latest = latest == self._latest, latest
        if is_settled and latest != self._stamp:
            self._stamp = latest
            await self._reread()
        elif self._skipped:
            self._take()  # a stored key may have left its name
        self._tell()

    async def _reread(self) -> None:
        try:
            held = await asyncio.to_thread(read_key_file, self._path, self._dates)
        except KeyFileError as error:
            self._fault = str(error)
            return
        detail = _change_words(self._held.keys, held.keys)
        self._fault, self._held = "", held
        self._take()
        self._log.info(log.KEYS_FILE_READ, **self.body())
        if detail:
            self._audit.note(Caller(), "keys file", str(self._path), detail)

    def _take(self) -> None:
        """Have the keyring take the keys whose name no stored key has."""
        self._skipped = self._keyring.use_file(self._held.keys)

    def _tell(self) -> None:
        """Log a problem once."""
        problem = self.problem or self.warning
        if problem and problem != self._told:
            self._log.warning(log.KEYS_FILE_UNUSABLE, reason=problem)
        self._told = problem

    def _look(self) -> FileStamp:
        ahead = round((self._clock.wall() - self._clock.now()) / _DATE_STEP_S)
        try:
            found = self._path.stat()
        except (OSError, ValueError):
            return FileStamp(ahead=ahead)
        return FileStamp(
            (
                found.st_dev,
                found.st_ino,
                found.st_size,
                found.st_mtime_ns,
                found.st_ctime_ns,
                found.st_mode,
            ),
            ahead,
        )

    @property
    def _dates(self) -> Dates:
        return Dates(self._clock, is_of_file=True)


def _change_words(before: Iterable[Key], after: Iterable[Key]) -> str:
    """Return which keys of a file are new, changed or gone, for the audit."""
    old, new = ({key.name: key for key in keys} for keys in (before, after))
    changed = [name for name in new if name in old and new[name] != old[name]]
    found = {
        "added": [name for name in new if name not in old],
        "changed": changed,
        "removed": [name for name in old if name not in new],
    }
    return "; ".join(
        f"{what} {', '.join(names)}" for what, names in found.items() if names
    )
