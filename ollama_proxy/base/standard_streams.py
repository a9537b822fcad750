"""Handle standard streams that are closed, or whose terminal has closed."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

_STREAMS = (0, 1, 2)


def open_missing_streams() -> None:
    """Open standard input, output and error on ``/dev/null`` if they are closed.

    Otherwise the next socket or database would get the number of standard error, and
    messages would be written into it.
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


class UnwrittenError(OSError):
    """Reports that output could not be written."""


class ToldStream(io.TextIOWrapper):
    """Names its own faults, and escapes characters that its encoding lacks."""

    def write(self, text: str, /) -> int:
        """Write text. Raises `UnwrittenError`."""
        with _named_faults():
            return super().write(text)

    def flush(self) -> None:
        """Flush standard output and error. Raises `UnwrittenError`."""
        with _named_faults():
            super().flush()


@contextlib.contextmanager
def _named_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnwrittenError(error.errno, error.strerror) from error


def name_faults_of_output() -> None:
    """Let a command tell that its output is refused from that anything else is."""
    out = sys.stdout
    if type(out) is io.TextIOWrapper:
        encoding, lines = out.encoding, out.line_buffering
        sys.stdout = ToldStream(
            out.detach(), encoding, "backslashreplace", line_buffering=lines
        )


def discard_unwritten() -> None:
    """Flush standard output and error; drop what can't be written.

    Otherwise Python fails to flush them at its end, complains and exits with 120.
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
