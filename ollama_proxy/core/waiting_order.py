"""Order the requests that wait for a slot: by priority, then each key in turn.

Those of one key form a line, in the order of their arrival. Without keys there is one
line for each client's address. Slots go to the first of a line, and the lines take
turns: next is the line that has waited longest. A line has waited since it last got a
slot, or since the arrival of its first request if that was later; each level of
priority counts as `LEVEL_S` seconds more.

- So a request rises by one level for each minute in which its line gets nothing.
- Of two lines with equal priority each gets every other slot, however many requests the
  one has, and for however long these have waited already.
- A line that waits is passed only by lines that have waited longer by this reckoning.
  One that got a slot begins again at zero, so those of higher priority together delay
  it by no more than a minute per level, and each of the others by one slot.

Time alone never changes the order: a line is placed by one number, the moment at which
its wait began minus its head start, and that changes only when it gets a slot. So a
heap of the lines is always in order.

Pure: times are arguments, in seconds.
"""

import heapq
import math
from collections import OrderedDict
from collections.abc import Generator, Iterator
from typing import Final, Generic, NamedTuple, TypeVar

from ollama_proxy.core.access.keys import Caller

LEVEL_S: Final = 60.0
"""Seconds of waiting that one level of priority is worth."""

_STALE_ENTRIES = 64

T = TypeVar("T")

_Place = tuple[float, int]
"""Where a line stands: since when it has waited, minus its head start, in seconds;
then, of lines with equal moments, which was put there first."""

_NOWHERE: Final = (math.inf, 0)


class Turn(NamedTuple):
    """Names the line of a request: by its key, or by its client's address.

    A key whose priority was changed has a second line while the first is not empty.
    """

    caller: str = ""
    priority: int = 0


SOMEBODY: Final = Turn()
"""Is the line of a request whose caller is not known."""


def turn_of(caller: Caller) -> Turn:
    """Return the line in which a caller's requests wait."""
    key = caller.key
    if key is None:
        return Turn(caller.address)
    return Turn(key.id, key.rights.priority)


class _Line(Generic[T]):
    """Holds the waiting requests of one caller, by arrival, and where the line stands.

    Entries in the heap with another ``place`` are out of date.
    """

    __slots__ = ("arrivals", "place", "served_at", "turn")

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.arrivals: OrderedDict[T, float] = OrderedDict()
        self.served_at = -math.inf
        self.place: _Place = _NOWHERE

    @property
    def begins_at(self) -> float:
        """Return the moment at which its wait began, minus its head start."""
        since = max(next(iter(self.arrivals.values())), self.served_at)
        return since - LEVEL_S * self.turn.priority


class WaitingOrder(Generic[T]):
    """Holds what waits, in order; adding, removing and serving one take O(log lines).

    Items are compared by identity.
    """

    def __init__(self) -> None:
        self._lines: dict[Turn, _Line[T]] = {}
        self._line_of: dict[T, _Line[T]] = {}
        self._heap: list[tuple[_Place, _Line[T]]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._line_of)

    def __contains__(self, turn: Turn) -> bool:
        """Tell whether something waits in a line."""
        return turn in self._lines

    def add(self, item: T, turn: Turn, now: float) -> None:
        """Put an item at the end of its line."""
        line = self._lines.get(turn)
        if line is None:
            line = self._lines[turn] = _Line(turn)
        line.arrivals[item] = now
        self._line_of[item] = line
        if len(line.arrivals) == 1:
            self._put(line)

    def discard(self, item: T) -> None:
        """Remove an item that waits no more, if it is still there."""
        line = self._line_of.pop(item, None)
        if line is None:
            return
        was_first = next(iter(line.arrivals)) is item
        del line.arrivals[item]
        if was_first:
            self._put(line)

    def serve(self, item: T, now: float) -> None:
        """Remove an item that got a slot: its line begins to wait anew."""
        line = self._line_of.pop(item)
        del line.arrivals[item]
        line.served_at = now
        self._put(line)

    def _put(self, line: _Line[T]) -> None:
        """Put a line where it belongs now; an empty one is forgotten."""
        if not line.arrivals:
            del self._lines[line.turn]
            line.place = _NOWHERE
            return
        self._number += 1
        line.place = (line.begins_at, self._number)
        heapq.heappush(self._heap, (line.place, line))
        if len(self._heap) > 2 * len(self._lines) + _STALE_ENTRIES:
            self._heap = [(one.place, one) for one in self._lines.values()]
            heapq.heapify(self._heap)

    def in_order(self, now: float) -> Generator[T, None, None]:
        """Iterate over the items in the order in which they would be served now.

        Costs O(log lines) for each item that is taken. Nothing may be added or removed
        meanwhile; close the iterator before that, or take all of it.
        """
        taken: list[tuple[_Place, _Line[T]]] = []
        again: list[tuple[_Place, _Line[T], Iterator[T]]] = []
        number = self._number
        try:
            while (heap := self._fresh_heap()) or again:
                if again and (not heap or again[0][0] < heap[0][0]):
                    _, line, items = heapq.heappop(again)
                else:
                    taken.append(heapq.heappop(heap))
                    line = taken[-1][1]
                    items = iter(line.arrivals)
                item = next(items, None)
                if item is None:
                    continue
                yield item
                if len(line.arrivals) > 1:
                    number += 1
                    place = (now - LEVEL_S * line.turn.priority, number)
                    heapq.heappush(again, (place, line, items))
        finally:
            for entry in taken:
                heapq.heappush(self._heap, entry)

    def _fresh_heap(self) -> list[tuple[_Place, _Line[T]]]:
        """Return the heap, whose first entry is not out of date."""
        heap = self._heap
        while heap and heap[0][0] != heap[0][1].place:
            heapq.heappop(heap)
        return heap

    def place_of_next(self, turn: Turn, now: float) -> int:
        """Return the place, from 1, that one more item of a line would have.

        Looks at each line.
        """
        own = self._lines.get(turn)
        ahead = len(own.arrivals) if own is not None else 0
        begins_at, rounds = now - LEVEL_S * turn.priority, ahead
        for line in self._lines.values():
            count = len(line.arrivals)
            if line is own:
                continue
            if line.turn.priority > turn.priority:
                ahead += count
            elif line.turn.priority < turn.priority:
                ahead += line.place[0] <= begins_at
            elif own is None or line.place < own.place:
                ahead += min(count, rounds + 1)
            else:
                ahead += min(count, rounds)
        return ahead + 1
