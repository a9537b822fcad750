"""The order of those that wait: priority, then each key in turn, then arrival."""

import itertools
import random
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from ollama_proxy.core.access.keys import Caller, Key, KeyId, Rights
from ollama_proxy.core.waiting_order import LEVEL_S, Turn, WaitingOrder, turn_of


def served(order: WaitingOrder[str], moments: Sequence[float]) -> list[str]:
    """Serve one at each moment, as slots become free."""
    done = []
    for now in moments:
        with closing(order.in_order(now)) as items:
            item = next(items)
        order.serve(item, now)
        done.append(item)
    return done


def waiting(*items: tuple[str, float, int]) -> WaitingOrder[str]:
    """Return an order with items: name (its first letter is the caller), arrival."""
    order: WaitingOrder[str] = WaitingOrder()
    for name, arrival, priority in items:
        order.add(name, Turn(name[0], priority), arrival)
    return order


def test_one_caller_is_served_in_order_of_arrival() -> None:
    order = waiting(("a1", 0, 0), ("a2", 1, 0), ("a3", 2, 0))
    assert served(order, [10, 20, 30]) == ["a1", "a2", "a3"]
    assert len(order) == 0


def test_callers_take_turns_however_many_requests_one_of_them_has() -> None:
    flood = [(f"a{n}", n / 10, 0) for n in range(5)]
    order = waiting(*flood, ("b1", 9, 0), ("b2", 9, 0), ("c1", 9.5, 0))
    assert served(order, range(10, 18)) == [
        *("a0", "b1", "c1"),
        *("a1", "b2"),
        *("a2", "a3", "a4"),
    ]


def test_a_flood_that_has_waited_for_hours_does_not_pass_a_newcomer_twice() -> None:
    order = waiting(*((f"a{n}", 0, 0) for n in range(500)))
    for n in range(300):
        assert served(order, [20.0 * n]) == [f"a{n}"]
    order.add("b1", Turn("b"), 6000.0)
    assert served(order, [6001.0, 6020.0, 6040.0]) == ["a300", "b1", "a301"]


def test_higher_priority_is_first_until_the_other_has_waited_a_minute_per_level() -> (
    None
):
    order = waiting(("low", 0, 0), *((f"h{n}", n, 2) for n in range(200)))
    moments = [float(n) for n in range(50, 200)]
    at = moments[served(order, moments).index("low")]
    assert 2 * LEVEL_S <= at <= 2 * LEVEL_S + 2


def test_negative_priority_is_behind_none_at_all() -> None:
    order = waiting(("l1", 0, -1), ("m1", 50, 0), ("n1", 70, 0))
    assert served(order, [80, 81, 82]) == ["m1", "l1", "n1"]


def test_one_that_leaves_gives_its_place_up() -> None:
    order = waiting(("a1", 0, 0), ("b1", 1, 0), ("a2", 2, 0))
    order.discard("a1")
    order.discard("a1")
    assert served(order, [3, 4]) == ["b1", "a2"]


def test_a_turn_is_by_key_and_its_priority_else_by_address() -> None:
    key = Key(KeyId("0badcafe"), "ci", b"", Rights(priority=3))
    assert turn_of(Caller("10.0.0.1", key)) == Turn("0badcafe", 3)
    assert turn_of(Caller("10.0.0.1")) == Turn("10.0.0.1", 0)


class Moment(float):
    """A moment that counts how often any of its kind is compared."""

    compared = 0

    def __sub__(self, other: float) -> "Moment":
        return Moment(float(self) - other)

    def __lt__(self, other: float) -> bool:
        Moment.compared += 1
        return float(self) < float(other)

    def __eq__(self, other: object) -> bool:
        Moment.compared += 1
        return isinstance(other, float) and float(self) == float(other)

    __hash__ = float.__hash__


@pytest.mark.parametrize("lines", [1, 100, 10_000])
def test_an_arrival_or_a_slot_costs_the_same_with_ten_thousand_waiting(
    lines: int,
) -> None:
    order = WaitingOrder[int]()
    for number in range(10_000):
        turn = Turn(str(number % lines), number % 3)
        order.add(number, turn, Moment(number % 1000))
    costs = []
    for number in range(10_000, 10_100):
        Moment.compared, now = 0, Moment(number)
        with closing(order.in_order(now)) as items:
            item = next(items)
        order.serve(item, now)
        order.add(number, Turn("another"), now)
        order.discard(number)
        costs.append(Moment.compared)

    assert max(costs) <= 400
    assert len(order) == 9_900


@dataclass(slots=True)
class NaiveOrder:
    """The same order, found by looking at everything each time."""

    items: dict[int, tuple[Turn, float]] = field(default_factory=dict)
    served_at: dict[Turn, tuple[float, int]] = field(default_factory=dict)
    put: dict[Turn, tuple[float, int]] = field(default_factory=dict)
    number: int = 0

    def first_of(self, turn: Turn) -> int | None:
        return next((n for n, (its, _) in self.items.items() if its == turn), None)

    def place(self, turn: Turn) -> None:
        """Work out anew where a line stands, unless it stands there."""
        first = self.first_of(turn)
        if first is None:
            self.served_at.pop(turn, None)
            self.put.pop(turn, None)
            return
        self.number += 1
        since = max(self.items[first][1], self.served_at.get(turn, (-1e9, 0))[0])
        self.put[turn] = (since - 60.0 * turn.priority, self.number)

    def add(self, item: int, turn: Turn, now: float) -> None:
        is_first = self.first_of(turn) is None
        self.items[item] = (turn, now)
        if is_first:
            self.place(turn)

    def discard(self, item: int) -> None:
        turn, _ = self.items[item]
        was_first = self.first_of(turn) == item
        del self.items[item]
        if was_first:
            self.place(turn)

    def serve(self, item: int, now: float) -> None:
        turn, _ = self.items.pop(item)
        self.served_at[turn] = (now, 0)
        self.place(turn)

    def copy(self) -> "NaiveOrder":
        return NaiveOrder(
            dict(self.items), dict(self.served_at), dict(self.put), self.number
        )

    def in_order(self, now: float) -> list[int]:
        """Serve a copy to its end at this moment."""
        rest, done = self.copy(), []
        while rest.items:
            turn = min(rest.put, key=lambda one: rest.put[one])
            item = rest.first_of(turn)
            assert item is not None
            rest.serve(item, now)
            done.append(item)
        return done


@pytest.mark.parametrize("seed", range(30))
def test_a_history_is_ordered_as_by_looking_at_everything_each_time(seed: int) -> None:
    rng = random.Random(seed)
    order, naive = WaitingOrder[int](), NaiveOrder()
    turns = [
        Turn(name, rng.choice((0, 0, 0, 1, 3, -2)))
        for name in "abcdef"[: rng.randint(1, 6)]
    ]
    now = 0.0
    for number in itertools.count():
        now += rng.choice((0.0, 0.5, 5.0, 70.0))
        roll = rng.random()
        if number == 150:
            break
        if roll < 0.5 or not naive.items:
            turn = rng.choice(turns)
            told = order.place_of_next(turn, now)
            order.add(number, turn, now)
            naive.add(number, turn, now)
            assert naive.in_order(now).index(number) + 1 == told
        elif roll < 0.65:
            item = rng.choice(list(naive.items))
            order.discard(item)
            naive.discard(item)
        else:
            item = naive.in_order(now)[rng.choice((0, 0, 0, -1))]
            order.serve(item, now)
            naive.serve(item, now)
        assert len(order) == len(naive.items)
        assert list(order.in_order(now)) == naive.in_order(now)


@pytest.mark.parametrize("seed", range(20))
def test_no_line_waits_longer_than_a_minute_per_level_and_one_slot_of_each_other(
    seed: int,
) -> None:
    """Many callers ask more than is served, new ones come all the time."""
    rng = random.Random(seed)
    order = WaitingOrder[int]()
    slot_s, now, number = rng.choice((0.5, 3.0, 20.0)), 0.0, 0
    newcomers = itertools.count()
    since: dict[Turn, float] = {}
    lines: dict[Turn, set[int]] = {}
    turn_of_item: dict[int, Turn] = {}
    ahead: dict[Turn, int] = {}
    regulars = [Turn(f"r{n}", rng.randint(0, 3)) for n in range(rng.randint(1, 8))]
    for _ in range(600):
        now += slot_s
        arrivals = [rng.choice(regulars) for _ in range(rng.choice((0, 1, 3)))]
        arrivals += [Turn(f"n{next(newcomers)}", 3) for _ in range(rng.choice((0, 1)))]
        for turn in arrivals:
            number += 1
            order.add(number, turn, now)
            if not lines.get(turn):
                since[turn], ahead[turn] = now, len(lines)
            lines.setdefault(turn, set()).add(number)
            turn_of_item[number] = turn
        with closing(order.in_order(now)) as items:
            item = next(items, None)
        if item is None:
            continue
        order.serve(item, now)
        turn = turn_of_item[item]
        others = ahead[turn] + len(regulars)
        # Until the head start of others is over, any of them may go first; afterwards
        # each line that was there before then goes once.
        most_s = LEVEL_S * (3 - turn.priority)
        came = int(most_s / slot_s) + 1
        assert now - since[turn] <= most_s + slot_s * (others + came) + slot_s
        lines[turn].discard(item)
        if lines[turn]:
            since[turn], ahead[turn] = now, len(lines)
        else:
            del lines[turn]
