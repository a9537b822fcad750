"""Words for the rights of a key: each is read, or named with what to write instead."""

import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_proxy.core.access.keys import DEFAULT_ROUTES, Key, KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.gateway.key_text import key_text
from ollama_proxy.gateway.key_view import key_body
from ollama_proxy.gateway.key_words import (
    TERM_WORDS,
    Dates,
    KeyTerms,
    name_fault,
    read_terms,
)
from tests.gateway.rig import NOW, SetClock

FULL = Rights(
    models=("llama3*",),
    rpm=60,
    parallel=5,
    tokens_per_day=1000,
    budget_day=5_000_000,
    budget_month=60_000_000,
    may_wake=False,
    max_hold_s=300.0,
    priority=3,
)


def read(
    words: dict[str, Any], rights: Rights | None = None, **dates: Any
) -> tuple[KeyTerms, list[str]]:
    before = KeyTerms(Rights() if rights is None else rights)
    return read_terms(words, before, Dates(SetClock(), **dates))


def fault(word: str, value: object) -> str:
    """Return the one sentence on a value that is wrong, without the word before it."""
    terms, faults = read({word: value}, FULL)
    assert terms.rights == FULL
    assert len(faults) == 1
    assert "\n" not in faults[0]
    assert faults[0].startswith(f"{word}: ")
    return faults[0].removeprefix(f"{word}: ")


def test_no_words_mean_chat_embed_and_read_of_all_models() -> None:
    terms, faults = read({})

    assert faults == []
    assert terms == KeyTerms(Rights(), None)
    assert terms.rights.routes == DEFAULT_ROUTES
    assert terms.rights.may_wake


@pytest.mark.parametrize("as_text", [False, True])
def test_every_word_sets_its_right(*, as_text: bool) -> None:
    words: dict[str, Any] = {
        "models": ["llama3*"],
        "rpm": 60,
        "parallel": 5,
        "tokens_per_day": 1000,
        "budget": ["5/day", "60/month"],
        "no_wake": True,
        "max_hold": 300,
        "priority": 3,
    }
    if as_text:
        words |= {
            **{word: str(words[word]) for word in ("rpm", "parallel", "priority")},
            "models": " llama3* ",
            "budget": "5.0/day, 60 / month",
            "tokens_per_day": "1000",
            "max_hold": "5m",
        }

    assert read(words) == (KeyTerms(FULL), [])


def test_rights_are_named() -> None:
    terms, _ = read({"routes": "chat, jobs"})

    assert terms.rights.routes == {RouteClass.CHAT, RouteClass.JOBS}


@pytest.mark.parametrize("value", ["none", None])
def test_limits_are_taken_away(value: str | None) -> None:
    names = ["rpm", "parallel", "tokens_per_day", "budget", "max_hold", "priority"]
    words = {**dict.fromkeys(names, value), "models": "all", "no_wake": False}

    assert read(words, FULL) == (KeyTerms(Rights()), [])


def test_a_budget_leaves_that_of_the_other_period_alone() -> None:
    terms, _ = read({"budget": "0.5/day"}, FULL)
    less, _ = read({"budget": ["none/day"]}, FULL)

    assert (terms.rights.budget_day, terms.rights.budget_month) == (500_000, 60_000_000)
    assert (less.rights.budget_day, less.rights.budget_month) == (None, 60_000_000)


@pytest.mark.parametrize("value", ["*", ["*"], "all", ["all"]])
def test_all_models_are_no_glob_that_every_request_is_judged_by(value: object) -> None:
    terms, _ = read({"models": value}, FULL)

    assert not terms.rights.models


@pytest.mark.parametrize(
    ("value", "after_s"),
    [
        ("30d", 30 * 86400.0),
        (90, 90.0),
        ("2027-01-16", 16 * 3600.0),
        ("2027-01-15T09:00:00+01:00", None),
        ("2027-01-15T10:00:00+01:00", 3600.0),
        ("2027-01-15T08:00:02Z", 2.0),
        (datetime.date(2027, 1, 16), 16 * 3600.0),
    ],
)
def test_a_key_expires_after_a_time_or_at_a_date(
    value: object, after_s: float | None
) -> None:
    terms, faults = read({"expires": value})

    if after_s is None:
        assert "is not in the years to come" in faults[0]
    else:
        assert faults == []
        assert terms.expires_at == pytest.approx(NOW + after_s)


def test_a_file_names_dates_since_it_is_read_again_and_again() -> None:
    assert read({"expires": "30d"}, is_of_file=True)[1] == [
        "expires: '30d' is not a date; write 2027-01-31"
    ]
    past, faults = read({"expires": "2027-01-14"}, is_of_file=True)
    assert faults == []
    assert past.expires_at == NOW - 32 * 3600.0
    for date in ("0001-01-01", "0001-01-01T00:00:00+14:00", "1969-12-31"):
        terms, faults = read({"expires": date}, is_of_file=True)
        key = Key(KeyId("0123abcd"), "a", b"", expires_at=terms.expires_at)
        assert faults == []
        assert key_body(key, SetClock())["expires"] == "1970-01-01T00:00:01Z"


def test_a_machine_without_a_date_counts_from_the_last_one_known() -> None:
    clock = SetClock()
    clock.wall = lambda: 10.0  # type: ignore[method-assign]  # 1970: no battery
    terms, faults = read_terms(
        {"expires": "2027-01-16"}, KeyTerms(Rights()), Dates(clock)
    )

    assert faults == []
    assert terms.expires_at == NOW + 16 * 3600.0


@pytest.mark.parametrize(
    ("word", "value", "told"),
    [
        ("routes", "chatt", "'chatt' is no right; did you mean chat?"),
        (
            "routes",
            "x",
            "'x' is no right; known: chat, embed, read, write, jobs, admin",
        ),
        ("routes", "", "'' names no right; write some of chat, embed"),
        ("models", "", "'' names no model; write llama3*, or all"),
        ("models", [], "'[]' names no model"),
        ("models", "none", "'none' names no model; all stands for every model"),
        ("models", "all,a", "'all,a': all and * stand alone"),
        ("models", "a[b]", "'a[b]': '[' stands in no name of a model"),
        ("models", "x" * 201, "is longer than 200 characters"),
        ("models", ["a"] + [f"m{n}" for n in range(100)], "at most 100"),
        ("models", {"a": 1}, "is not a list of names"),
        ("rpm", 0, "'0' is not a whole number from 1 to 1000000; write one, or none"),
        ("rpm", -1, "'-1' is not a whole number"),
        ("rpm", "1e3", "'1e3' is not a whole number"),
        ("rpm", 1.5, "'1.5' is not a whole number"),
        ("rpm", True, "'True' is not a whole number"),
        ("rpm", 10**18, "is not a whole number"),
        ("parallel", "", "'' is not a whole number"),
        ("tokens_per_day", float("nan"), "'nan' is not a whole number"),
        ("budget", "5", "'5' is no budget; write 5/day or 60/month, in the currency"),
        ("budget", "5/week", "'5/week' is no budget"),
        ("budget", "-5/day", "'-5/day' is no budget"),
        ("budget", "nan/day", "'nan/day' is no budget"),
        ("budget", "0.0000001/day", "is no budget"),
        ("budget", "", "'' is no budget"),
        ("budget", "0/day", "'0/day' lets nothing be spent; write no_wake for that"),
        ("budget", ["5/day", "6/day"], "has two budgets for the day"),
        ("no_wake", "yes", "'yes' is neither true nor false"),
        ("max_hold", "long", "'long' is not a time up to a day; write 90s, 5m or none"),
        ("max_hold", "2d", "'2d' is not a time up to a day"),
        ("max_hold", float("nan"), "'nan' is not a time up to a day"),
        ("max_hold", "9" * 400, "is not a time up to a day"),
        ("priority", "high", "'high' is not a whole number from -100 to 100"),
        ("priority", 101, "'101' is not a whole number"),
        ("expires", "soon", "'soon' is neither a time nor a date; write 30d or 2027"),
        ("expires", "", "'' is neither a time nor a date"),
        ("expires", "2026-01-01", "'2026-01-01' is not in the years to come"),
        ("expires", "0s", "'0s' is not in the years to come"),
        ("expires", "9999-01-01", "is not in the years to come"),
        ("expires", "2027-13-01", "is neither a time nor a date"),
        ("colour", "red", "a key has no such word; known: models, routes, rpm"),
    ],
)
def test_a_wrong_word_is_one_sentence_that_says_what_to_write(
    word: str, value: object, told: str
) -> None:
    assert told in fault(word, value)


def test_a_long_value_is_cut() -> None:
    assert len(fault("rpm", "x" * 100_000)) < 250


def test_all_faults_are_told_at_once() -> None:
    _, faults = read({"rpm": 0, "routes": "x", "budget": "x", "no such": 1})

    assert [one.partition(":")[0] for one in faults] == [
        "rpm",
        "routes",
        "budget",
        "'no such'",
    ]


@given(
    st.dictionaries(
        st.sampled_from(TERM_WORDS),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=30)
        | st.lists(st.text(max_size=10) | st.integers(), max_size=3)
        | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    )
)
@settings(max_examples=300, deadline=None)
def test_any_values_are_rights_or_faults(words: dict[str, Any]) -> None:
    terms, faults = read(words)

    assert all("\n" not in one for one in faults)
    assert terms.rights.rpm is None or terms.rights.rpm >= 1
    assert terms.expires_at is None or terms.expires_at > NOW


@pytest.mark.parametrize("name", ["a", "laptop", "CI-2.eu_x@home", "0" * 64])
def test_a_name_may_be_one(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    "name",
    [None, "", " ", "a b", "-a", "..", "a/b", "ä", "a\n", "0" * 65, 7, "op_x", "opt_x"],
)
def test_a_name_may_be_none(name: object) -> None:
    assert (name_fault(name) or "").startswith("name: ")


def test_a_key_in_the_place_of_another_word_is_not_quoted() -> None:
    text = key_text(KeyId("0a1b2c3d"), bytes(32))
    words = {"models": f"llama3,{text}", "routes": text, "rpm": text, "expires": text}
    _, faults = read({**words, text: 1})
    assert len(faults) == 5
    assert not [fault for fault in faults if text in fault]
    assert "models: 'op_…' is a key, and no model" in faults
