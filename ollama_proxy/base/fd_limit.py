"""Raise the limit of file descriptors, which bounds the number of connections.

Each request takes two: one to its client and one to the instance. At the limit, new
clients wait in the kernel's backlog until others are done.
"""

import sys

RESERVED = 128
"""Descriptors that are needed for other things: the state, logs, a cloud's API."""

_MOST = 1_048_576


def raise_limit() -> int | None:
    """Raise the limit to what the system allows; return it, None for unlimited."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - not on every platform

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= most:
        return None if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # macOS caps it below the hard limit
        return soft
    return most


def requests_at_once(descriptors: int) -> int:
    """Return how many requests fit into so many descriptors."""
    return max(0, descriptors - RESERVED) // 2
