"""Write files that only the proxy's user can read."""

import contextlib
import os
from pathlib import Path


def write_private(path: Path, data: bytes, *, is_lasting: bool = False) -> None:
    """Write a file that only its owner can read, whole or not at all.

    A reader has the old file or the new one. ``is_lasting``: it is on disk afterwards,
    whatever happens to the machine. Raises `OSError`, and leaves nothing half written.
    """
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            if is_lasting:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
