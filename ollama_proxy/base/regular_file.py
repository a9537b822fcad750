"""Read files that people name in settings."""

import os
import stat
from pathlib import Path


def read_regular(path: Path, most: int) -> tuple[bytes | None, int]:
    """Return the first bytes of a file, ``most`` and one more, and its mode.

    None in place of the bytes if it is no regular file. A link is followed: the rights
    of what it names count. Raises `OSError`; `ValueError` for a NUL in the path.
    """
    # O_NONBLOCK: opening a named pipe would wait for its writer.
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        mode = os.fstat(number).st_mode
        if not stat.S_ISREG(mode):
            return None, mode
        with os.fdopen(number, "rb", closefd=False) as file:
            return file.read(most + 1), mode
    finally:
        os.close(number)
