"""Write until when an instance is marked as wanted, and sweep what has expired.

The mark is for machines elsewhere (`sweep --expired`), so it is a date.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterable

from ollama_proxy.backends.base.cloud import R
from ollama_proxy.base.errors import BackendError, NotFoundError
from ollama_proxy.base.moments import is_date_known


def is_renewal_due(lease_end: float, wall: float, lease_s: float) -> bool:
    """Tell whether an instance that is wanted has to be marked anew.

    Half of its lease is over, or it ends so late that it was marked by a clock that was
    wrong: if we never came back, it would not be swept. A clock that is not set yet
    shortens none.
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
    """End what has expired in each location; return it in words.

    ``end`` is None for a dry run. What fails in one location, or with one instance,
    keeps no other from being ended; it is raised once all were tried.
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
