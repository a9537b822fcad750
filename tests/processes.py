"""The processes of this machine, which come and go while they are looked at."""

from collections.abc import Callable

import psutil


def living(matches: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Return the processes that match; one that ends under the look does not."""
    found = []
    for process in psutil.process_iter():
        try:
            if matches(process) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
