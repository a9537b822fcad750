"""Decide until when an instance is marked as wanted, and sweep expired instances.

Other machines compare the mark (`sweep --expired`), so it is a date.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterable

from ollama_proxy.backends.base.cloud import R
from ollama_proxy.base.errors import BackendError, NotFoundError
from ollama_proxy.base.moments import is_date_known


def is_renewal_due(lease_end: float, wall: float, lease_s: float) -> bool:
    """Tell whether a wanted instance needs a new mark.

    It does after half of its lease, or if it ends so late that a wrong clock must have
    set it: without the proxy it would never be swept. A clock that is not set yet
    shortens no lease.
    """
    left_s = lease_end - wall
    return left_s < lease_s / 2.0 or (left_s > 2.0 * lease_s and is_date_known(wall))


async def sweep_expired(
    locations: Iterable[str],
    *,
    listed: Callable[[str], Awaitable[list[R]]],
    is_expired: Callable[[R], bool],
    described: Callable[[str, R], str],
    end: Callable[[str, R], Awaitable[None]] | None,
) -> list[str]:
    """Stop the expired instances of each location; return descriptions of them.

    ``end``: None for a dry run. A failure in one location, or with one instance, does
    not affect the others; it is raised after all were tried.
    """
    swept: list[str] = []
    problem: BackendError | None = None
    for location in locations:
        try:
            expired = [one for one in await listed(location) if is_expired(one)]
        except BackendError as error:
            problem = error
            continue
        for one in expired:
            swept.append(described(location, one))
            try:
                with contextlib.suppress(NotFoundError):
                    if end is not None:
                        await end(location, one)
            except BackendError as error:
                problem = error
    if problem is not None:
        raise problem
    return swept
