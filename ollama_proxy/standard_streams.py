"""Standard streams that are closed, or gone with their terminal."""

import os
import sys

_STREAMS = (0, 1, 2)


def open_missing_streams() -> None:
    """Open what is closed of standard input, output and error on ``/dev/null``.

    Otherwise the next socket or database gets the number of standard error, and a
    message to it lands there.
    """
    for number in _STREAMS:
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - a descriptor
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - likewise


def discard_unwritten() -> None:
    """Write what standard output and error hold back, or drop it if that fails.

    Python writes it at its end, and if it can't, complains and exits with 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _drop(stream.fileno())


def _drop(number: int) -> None:
    """Have a descriptor lead to ``/dev/null``."""
    opened = os.open(os.devnull, os.O_WRONLY)
    os.dup2(opened, number)
    os.close(opened)
