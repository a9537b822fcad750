"""Sessions of the page: whose they are, how long, and how many."""

import pytest

from ollama_proxy.gateway.sessions import SESSION_S, Sessions
from tests.fakes.keys import GOOD, READER
from tests.virtual_time import SetClock


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


def test_a_session_is_of_its_key_for_twelve_hours(clock: SetClock) -> None:
    sessions = Sessions(clock)
    one = sessions.begin(GOOD.key)
    assert len(one) == 43
    assert sessions.begin(GOOD.key) != one
    clock.moment += SESSION_S - 1
    assert sessions.key_of(one) == GOOD.key.id
    clock.moment += 1
    assert sessions.key_of(one) is None
    assert len(sessions) == 1


@pytest.mark.parametrize("text", ["", "x", "\udcff", "x" * 100_000])
def test_no_other_text_is_a_session(clock: SetClock, text: str) -> None:
    sessions = Sessions(clock)
    sessions.begin(GOOD.key)
    assert sessions.key_of(text) is None
    sessions.end(text)
    assert len(sessions) == 1


def test_it_ends_when_it_is_ended(clock: SetClock) -> None:
    sessions = Sessions(clock)
    one, other = sessions.begin(GOOD.key), sessions.begin(GOOD.key)
    sessions.end(one)
    assert sessions.key_of(one) is None
    assert sessions.key_of(other) == GOOD.key.id


def test_all_of_a_key_end_with_it(clock: SetClock) -> None:
    sessions = Sessions(clock)
    ended = [sessions.begin(GOOD.key) for _ in range(3)]
    other = sessions.begin(READER.key)
    sessions.end_of_key(GOOD.key)
    assert [sessions.key_of(one) for one in ended] == [None] * 3
    assert sessions.key_of(other) == READER.key.id


def test_the_oldest_ends_where_there_are_too_many(clock: SetClock) -> None:
    sessions = Sessions(clock, most=3, most_of_key=2)
    of_reader = sessions.begin(READER.key)
    first, *rest = (sessions.begin(GOOD.key) for _ in range(3))
    assert sessions.key_of(first) is None
    assert sessions.key_of(of_reader) == READER.key.id
    sessions.begin(READER.key)
    assert sessions.key_of(of_reader) is None
    assert [sessions.key_of(one) for one in rest] == [GOOD.key.id] * 2
    assert len(sessions) == 3


def test_no_session_can_be_read_from_what_is_held(clock: SetClock) -> None:
    sessions = Sessions(clock)
    one = sessions.begin(GOOD.key)
    assert one not in repr(vars(sessions))
