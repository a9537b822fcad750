"""Measure the work that arrives at a pool, with assumptions until it is measured.

Times are arguments. Memory is bounded, however much arrives.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass

SERVICE_PRIOR_S = 20.0
"""How long a request takes up its slot, until one was measured."""

_CLOUD_BOOT_S, _CHILD_BOOT_S, _EXTERNAL_BOOT_S = 300.0, 5.0, 0.0
_SHORTEST_WINDOW_S = 120.0
_LONGEST_WINDOW_S = 3600.0
_BUCKET_S = 5.0
_CLIENTS = 4096
_SETTLED_AFTER = 20


def boot_prior_s(*, is_external: bool, is_child: bool) -> float:
    """Return the assumed time until an instance is ready, before a launch was measured.

    ``is_external``: somebody else manages the server; ``is_child``: a process on this
    machine.
    """
    if is_external:
        return _EXTERNAL_BOOT_S
    return _CHILD_BOOT_S if is_child else _CLOUD_BOOT_S


@dataclass(slots=True)
class Arrival:
    """Tells from which client a request is, and whether the request is counted.

    ``client``: its key or address; None: unknown. One arrival belongs to one request,
    however often that asks for an instance.
    """

    client: Hashable = None
    is_counted: bool = False


class DemandMeter:
    """Counts arrivals, and averages how long requests occupy their slots.

    Arrivals are counted per 5 seconds, for an hour at most. A request that follows our
    503 to the same client is a retry and does not count again; 4096 such clients are
    remembered.
    """

    def __init__(self) -> None:
        self._counts: deque[list[float]] = deque()
        self._refused: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()
        self._service_s = SERVICE_PRIOR_S
        self._served = 0

    @property
    def service_s(self) -> float:
        """Return how long a request takes up its slot, on average."""
        return self._service_s

    @property
    def is_service_measured(self) -> bool:
        """Tell whether that was measured, or is assumed."""
        return self._served > 0

    def arrived(self, client: Hashable, now: float) -> None:
        """Take in that a client asks for an instance."""
        count, at = self._refused.pop(client, (0, now))
        if count > 0 and now - at <= _LONGEST_WINDOW_S:
            if count > 1:
                self._refused[client] = (count - 1, at)
            return
        bucket = now - now % _BUCKET_S
        if self._counts and self._counts[-1][0] >= bucket:
            self._counts[-1][1] += 1.0
        else:
            self._counts.append([bucket, 1.0])
            self._forget(now)

    def refused(self, client: Hashable, now: float) -> None:
        """Take in that we answered a client 503: its next request is a retry."""
        count, _ = self._refused.pop(client, (0, now))
        self._refused[client] = (count + 1, now)
        if len(self._refused) > _CLIENTS:
            self._refused.popitem(last=False)

    def note(self, arrival: Arrival, now: float) -> None:
        """Count a request once, however often it asks."""
        if not arrival.is_counted:
            arrival.is_counted = True
            self.arrived(arrival.client, now)

    def note_refused(self, arrival: Arrival, now: float) -> None:
        """Take in that we answered a counted request 503.

        If it asks again after all, that is the retry.
        """
        if arrival.is_counted:
            arrival.is_counted = False
            self.refused(arrival.client, now)

    def served(self, slot_s: float) -> None:
        """Record how long a request occupied its slot.

        Averages the assumed value and the first measured ones; then a moving average.
        """
        self._served = min(self._served + 1, _SETTLED_AFTER)
        self._service_s += (slot_s - self._service_s) / (self._served + 1)

    def load(self, now: float, boot_s: float) -> float:
        """Return how many slots recent arrivals keep busy on average.

        Recent: within the last two minutes, or one boot time if that is longer.
        """
        window_s = min(max(_SHORTEST_WINDOW_S, boot_s), _LONGEST_WINDOW_S)
        since = now - window_s
        count = 0.0
        for bucket, arrivals in reversed(self._counts):
            if bucket + _BUCKET_S <= since:
                break
            count += arrivals
        return count * self._service_s / window_s

    def _forget(self, now: float) -> None:
        while self._counts[0][0] < now - _LONGEST_WINDOW_S - _BUCKET_S:
            self._counts.popleft()
