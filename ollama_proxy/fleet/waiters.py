"""Hold requests that wait for an instance: bounded in number, granted in turn."""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import closing
from dataclasses import dataclass
from enum import Enum

from ollama_proxy.base.errors import HoldLimitError
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.pool_facts import Waiting
from ollama_proxy.core.waiting_order import SOMEBODY, Turn, WaitingOrder
from ollama_proxy.fleet.lease import Lease

_FIRST_BATCH = 8
_COUNTED_EVERY_S = 1.0
_COUNTED_AT_ONCE = 2000  # waiting requests; to count more takes 5 ms and longer
_MOST_NEXT = 1024

Claim = Callable[[], Lease | None]
"""Leases an instance to one request, if one that suits it has room."""


class Wants(Enum):
    """Says whether a waiting request may wake an instance, or only join a launch.

    ``TO_WAKE_OWN``: one of ours, since servers of others lack its model.
    """

    TO_WAKE = "wake"
    TO_WAKE_OWN = "wake own"
    TO_JOIN = "join"


@dataclass(eq=False, slots=True)
class Waiter:
    """Holds the place of one request in the queue.

    - ``granted``: becomes its lease, or None if there will be none.
    - ``kind``: equal for requests that the same instances suit.
    - ``is_ready``: tells whether an instance is ready that suits it.
    - ``since``: when it began to wait, in time of the event loop.
    - ``model``: the one that it is for, if any.
    - ``is_overdue``: it has waited for as long as it may for an instance to start; now
      it only waits for a slot of one that is ready.
    """

    granted: asyncio.Future[Lease | None]
    claim: Claim
    kind: Hashable
    is_ready: Callable[[], bool]
    wants: Wants
    since: float
    model: str | None = None
    is_overdue: bool = False


class Ticket:
    """Tells a request that waits which place of the queue it has.

    ``turn``: the line in which it waits.
    """

    def __init__(self, turn: Turn = SOMEBODY) -> None:
        self.turn = turn
        self._of: tuple[Waiters, Waiter] | None = None

    @property
    def position(self) -> int | None:
        """Return its place, beginning with 1, as of the last seconds; None if none."""
        return None if self._of is None else self._of[0].position(self._of[1])

    def hand_out(self, waiters: "Waiters", waiter: Waiter) -> None:
        """Be the ticket of a request that begins to wait."""
        self._of = (waiters, waiter)


class Waiters:
    """Holds the requests that wait now. One is dropped when its client leaves.

    ``most``: how many may wait at once. ``has_room``: tells whether a ready instance
    has a free slot.
    """

    def __init__(
        self,
        most: int,
        *,
        has_room: Callable[[], bool],
        tasks: TaskOwner,
        timing: Timing,
    ) -> None:
        self._most = most
        self._has_room = has_room
        self._tasks = tasks
        self._pause_s = timing.batch_pause_s
        self._waiting: dict[Waiter, None] = {}  # in order of arrival
        self._order: WaitingOrder[Waiter] = WaitingOrder()
        self._numbers: Counter[Wants] = Counter()  # each arrival asks for them
        self._kinds: Counter[Hashable] = Counter()
        self._positions: dict[Waiter, int] = {}
        self._next: dict[Turn | int, int] = {}
        self._counted_at = 0.0
        self._is_releasing = False

    def __len__(self) -> int:
        return len(self._waiting)

    def any_to_wake(self) -> bool:
        """Tell whether a request waits that may have an instance woken."""
        return len(self._waiting) > self._numbers[Wants.TO_JOIN]

    def any_to_wake_own(self) -> bool:
        """Tell whether a request waits that no server of others can answer."""
        return self._numbers[Wants.TO_WAKE_OWN] > 0

    def models(self) -> set[str]:
        """Return the full names of the models for which an instance may be woken."""
        return {
            full_model_name(one.model)
            for one in self._waiting
            if one.wants is not Wants.TO_JOIN and one.model is not None
        }

    def facts(self) -> Waiting:
        """Count those that wait now, for the plan of their pool."""
        waking = (one for one in self._waiting if one.wants is not Wants.TO_JOIN)
        now, oldest = asyncio.get_running_loop().time(), next(waking, None)
        oldest_s = now - oldest.since if oldest is not None else 0.0
        others = self._numbers[Wants.TO_JOIN]
        return Waiting(len(self._waiting) - others, oldest_s, others)

    def own_facts(self, spill_after_s: float) -> Waiting:
        """Count those that no server of others can answer.

        The others count too once one has waited for ``spill_after_s``: until then a
        server may take them.
        """
        now, waiting = asyncio.get_running_loop().time(), self._waiting
        spared = next((one for one in waiting if one.wants is Wants.TO_WAKE), None)
        if spared is None or now - spared.since >= spill_after_s:
            return self.facts()
        own = next((one for one in waiting if one.wants is Wants.TO_WAKE_OWN), None)
        number = self._numbers[Wants.TO_WAKE_OWN]
        oldest_s = 0.0 if own is None else now - own.since
        return Waiting(number, oldest_s, len(waiting) - number)

    def position(self, waiter: Waiter) -> int | None:
        """Return the place of a request in the queue, as of the last seconds.

        None if it waits no more. With 2000 requests or fewer it is of the last second.
        """
        if waiter not in self._waiting:
            return None
        now = self._recount()
        if waiter not in self._positions:
            in_order = enumerate(self._order.in_order(now), 1)
            self._positions = {one: place for place, one in in_order}
        return self._positions[waiter]

    def next_position(self, turn: Turn) -> int:
        """Return the place that one more request of a line would have."""
        if not self._waiting:
            return 1
        now = self._recount()
        # All of a priority that have no line yet would come to the same place.
        known = turn if turn in self._order else turn.priority
        if known not in self._next:
            if len(self._next) >= _MOST_NEXT:
                self._next.clear()
            self._next[known] = self._order.place_of_next(turn, now)
        return self._next[known]

    def _recount(self) -> float:
        """Forget counted places that are too old; return the time."""
        now = asyncio.get_running_loop().time()
        every_s = _COUNTED_EVERY_S * max(1.0, len(self._waiting) / _COUNTED_AT_ONCE)
        if now - self._counted_at >= every_s:
            self._positions, self._next, self._counted_at = {}, {}, now
        return now

    async def wait(
        self,
        claim: Claim,
        wait_s: float,
        wants: Wants,
        *,
        is_ready: Callable[[], bool],
        kind: Hashable = None,
        ticket: Ticket | None = None,
        model: str | None = None,
    ) -> Lease | None:
        """Wait for a lease, in the line of the ticket; None if there will be none.

        That is so once ``wait_s`` has passed and no suitable instance ``is_ready``;
        where all slots of the ready ones are taken, it waits on. Raises
        `HoldLimitError` if too many wait already.
        """
        if len(self._waiting) >= self._most:
            raise HoldLimitError(f"{self._most} requests wait already; try again later")
        loop = asyncio.get_running_loop()
        granted = loop.create_future()
        waiter = Waiter(granted, claim, kind, is_ready, wants, loop.time(), model)
        ticket = ticket or Ticket()
        self._put_in(waiter, ticket.turn)
        ticket.hand_out(self, waiter)
        timer = loop.call_later(max(wait_s, 0.0), self._expire, waiter)
        is_handed_over = False
        self._try_at_once(waiter)
        try:
            lease = await waiter.granted
            is_handed_over = True
            return lease
        finally:
            timer.cancel()
            self._take_out(waiter)
            if not is_handed_over:
                _give_back(waiter.granted)

    def _try_at_once(self, waiter: Waiter) -> None:
        """Lease an instance to a new request that no other of its kind waits before.

        If others do, nothing suits them, and so nothing suits it. While requests are
        released in batches, it gets its turn in one of these.
        """
        is_first = self._kinds[waiter.kind] == 1
        if not is_first or self._is_releasing or not self._has_room():
            return
        if (lease := waiter.claim()) is not None:
            waiter.granted.set_result(lease)
            self._order.serve(waiter, waiter.since)
            self._take_out(waiter)

    def _expire(self, waiter: Waiter) -> None:
        """End a wait, unless it has become one for a slot of a ready instance."""
        waiter.is_overdue = True
        if not waiter.is_ready():
            self._end(waiter)

    def _end(self, waiter: Waiter) -> None:
        """Tell one that waits that there will be no instance."""
        self._take_out(waiter)
        if not waiter.granted.done():
            waiter.granted.set_result(None)

    def _put_in(self, waiter: Waiter, turn: Turn) -> None:
        self._waiting[waiter] = None
        self._order.add(waiter, turn, waiter.since)
        self._numbers[waiter.wants] += 1
        self._kinds[waiter.kind] += 1

    def _take_out(self, waiter: Waiter) -> None:
        """Take a request out of the queue, if it is still there."""
        if waiter not in self._waiting:
            return
        del self._waiting[waiter]
        self._order.discard(waiter)
        self._numbers[waiter.wants] -= 1
        self._kinds[waiter.kind] -= 1
        if not self._kinds[waiter.kind]:
            del self._kinds[waiter.kind]

    def release(self) -> None:
        """Begin to let the waiting requests go, in growing batches."""
        if self._waiting and not self._is_releasing:
            self._is_releasing = True
            self._tasks.spawn(self._release_in_batches(), name="release")

    async def _release_in_batches(self) -> None:
        """Release 8 requests, then 16 and so on: all at once would be a stampede."""
        batch = _FIRST_BATCH
        try:
            while self.grant(batch):
                # Doubling batches: 10 000 requests are released in 11 steps of about 10
                # ms.
                batch *= 2
                await asyncio.sleep(self._pause_s)
        finally:
            self._is_releasing = False

    def grant(self, most: int | None = None) -> int:
        """Lease what is free to those whose turn it is; return to how many.

        One for which nothing suitable is free lets those behind it pass that want
        something else. Once there is nothing for any kind of request, none is asked.
        """
        now = asyncio.get_running_loop().time()
        granted: list[Waiter] = []
        failed: set[Hashable] = set()
        with closing(self._order.in_order(now)) as in_order:
            for waiter in in_order:
                is_full = len(granted) == most or len(failed) == len(self._kinds)
                if is_full or not self._has_room():
                    break
                # Done: its client has just left.
                if waiter.granted.done() or waiter.kind in failed:
                    continue
                if (lease := waiter.claim()) is not None:
                    waiter.granted.set_result(lease)
                    granted.append(waiter)
                else:
                    failed.add(waiter.kind)
        for waiter in granted:
            self._order.serve(waiter, now)
            self._take_out(waiter)
        return len(granted)

    def give_up(self) -> None:
        """Tell all that wait that there will be no instance."""
        for waiter in list(self._waiting):
            self._end(waiter)

    def give_up_overdue(self) -> None:
        """End the waits for a slot of an instance that is not ready any more.

        Those that may wait for one to start wait on.
        """
        for waiter in list(self._waiting):
            if waiter.is_overdue and not waiter.is_ready():
                self._end(waiter)


def _give_back(granted: "asyncio.Future[Lease | None]") -> None:
    """Release a lease whose request left in the moment in which it was granted."""
    if not granted.done() or granted.cancelled():
        return
    if (lease := granted.result()) is not None:
        lease.release()
