"""A terminal of a process' own, which can be closed under it."""

import os
import pty
import select
import sys
import threading
from pathlib import Path

_CONTROLLED = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A pseudo-terminal; what is written to it goes to a file."""

    def __init__(self, log: Path) -> None:
        self._ours, self.theirs = pty.openpty()
        self._log = log
        self._is_open = True
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    command = (sys.executable, "-c", _CONTROLLED)
    """What runs a command with standard input for its controlling terminal.

    To be run by the leader of a session.
    """

    def hang_up(self) -> None:
        """Close it, as a window that is closed: the kernel sends SIGHUP."""
        if self._is_open:
            self._is_open = False
            self._reader.join()
            os.close(self._ours)

    def _read(self) -> None:
        with self._log.open("ab", buffering=0) as log:
            while self._is_open:
                if select.select([self._ours], [], [], 0.02)[0]:
                    try:
                        log.write(os.read(self._ours, 65536))
                    except OSError:  # no process has the other side open
                        return
