"""Read the words for each right of a key, and say which value is wrong, and why."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from ollama_proxy.base.parsers import parse_duration, parse_names
from ollama_proxy.core.access.keys import DEFAULT_ROUTES, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.access.spending import MILLIONTHS
from ollama_proxy.core.ollama.model_globs import ModelGlob
from ollama_proxy.gateway.key_text import hide_keys, key_id_of

RightReader = Callable[[object, Rights], Rights]
"""Returns rights as a value for one word changes them. Raises `ValueError`."""

_WHOLE = re.compile(r"-?[0-9]{1,15}")
_BUDGET = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?|none)\s*/\s*(day|month)")
_NONE = frozenset({"none", "never"})
_ALL_MODELS = frozenset({"all", "*"})
_MOST_GLOBS = 100
_LONGEST_GLOB = 200
_LONGEST_SHOWN = 80
_MOST_REQUESTS = 1_000_000
_MOST_TOKENS = 10**15
_HIGHEST_PRIORITY = 100
_LONGEST_HOLD_S = 86_400.0


def shown(value: object) -> str:
    """Return a value in quotes, cut where it is long."""
    text = hide_keys(value if isinstance(value, str) else str(value))
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")


def _guess(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence on an unknown word: what is close, else all."""
    every = list(known)
    close = difflib.get_close_matches(word[:_LONGEST_SHOWN], every, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(every)}"


def is_none(value: object) -> bool:
    """Tell whether a value takes a limit away."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _NONE)


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str | list | tuple):
        return parse_names(value)
    raise ValueError(f"{shown(value)} is not a list of names")


def _models(value: object, rights: Rights) -> Rights:
    if is_none(value):
        raise ValueError(f"{shown(value)} names no model; all stands for every model")
    names = _names(value)
    if not names:
        raise ValueError(f"{shown(value)} names no model; write llama3*, or all")
    if len(names) > _MOST_GLOBS:
        raise ValueError(f"these are {len(names)} globs; write at most {_MOST_GLOBS}")
    if set(names) & _ALL_MODELS:
        if len(names) > 1:
            raise ValueError(f"{shown(value)}: all and * stand alone")
        return replace(rights, models=())
    for name in names:
        if len(name) > _LONGEST_GLOB:
            raise ValueError(f"{shown(name)} is longer than {_LONGEST_GLOB} characters")
        if key_id_of(name) is not None:
            raise ValueError(f"{shown(name)} is a key, and no model")
        ModelGlob(name)
    return replace(rights, models=names)


def _routes(value: object, rights: Rights) -> Rights:
    if value is None:
        return replace(rights, routes=DEFAULT_ROUTES)
    names, known = _names(value), [route.value for route in RouteClass]
    if not names:
        message = f"{shown(value)} names no right; write some of {', '.join(known)}"
        raise ValueError(message)
    for name in names:
        if name not in known:
            raise ValueError(f"{shown(name)} is no right; {_guess(name, known)}")
    return replace(rights, routes=frozenset(map(RouteClass, names)))


def _limit(field: str, most: int) -> RightReader:
    """Return a reader of a limit that is a whole number from 1 on."""

    def read(value: object, rights: Rights) -> Rights:
        if is_none(value):
            return _changed(rights, field, None)
        number = _whole(value)
        if number is None or not 1 <= number <= most:
            raise ValueError(
                f"{shown(value)} is not a whole number from 1 to {most}; write one, or"
                " none for no limit"
            )
        return _changed(rights, field, number)

    return read


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    return int(text) if _WHOLE.fullmatch(text) else None


def _changed(rights: Rights, field: str, value: Any) -> Rights:
    return replace(rights, **{field: value})


def _budget(value: object, rights: Rights) -> Rights:
    """Set the budget of each period that is named; another one stays as it is."""
    if is_none(value):
        return replace(rights, budget_day=None, budget_month=None)
    seen: set[str] = set()
    for text in _names(value) or [""]:
        found = _BUDGET.fullmatch(text.lower())
        if found is None:
            raise ValueError(
                f"{shown(text)} is no budget; write 5/day or 60/month, in the currency"
                " of the provider, or none"
            )
        amount, period = found[1], found[2]
        if period in seen:
            raise ValueError(f"{shown(value)} has two budgets for the {period}")
        seen.add(period)
        millionths = None if amount == "none" else _millionths(amount)
        if millionths == 0:
            raise ValueError(
                f"{shown(text)} lets nothing be spent; write no_wake for that"
            )
        rights = _changed(rights, f"budget_{period}", millionths)
    return rights


def _millionths(amount: str) -> int:
    whole, _, part = amount.partition(".")
    return int(whole) * MILLIONTHS + int(part.ljust(6, "0") if part else 0)


def _no_wake(value: object, rights: Rights) -> Rights:
    if isinstance(value, bool):
        return replace(rights, may_wake=not value)
    raise ValueError(f"{shown(value)} is neither true nor false")


def _max_hold(value: object, rights: Rights) -> Rights:
    if is_none(value):
        return replace(rights, max_hold_s=None)
    try:
        length_s = parse_duration(value)
    except ValueError:
        length_s = -1.0
    if not 0 <= length_s <= _LONGEST_HOLD_S:
        message = f"{shown(value)} is not a time up to a day; write 90s, 5m or none"
        raise ValueError(message)
    return replace(rights, max_hold_s=length_s)


def _priority(value: object, rights: Rights) -> Rights:
    number = 0 if is_none(value) else _whole(value)
    if number is None or abs(number) > _HIGHEST_PRIORITY:
        most = _HIGHEST_PRIORITY
        raise ValueError(
            f"{shown(value)} is not a whole number from -{most} to {most}; write one;"
            " a higher one is served first"
        )
    return replace(rights, priority=number)


RIGHT_WORDS: Final[Mapping[str, RightReader]] = {
    "models": _models,
    "routes": _routes,
    "rpm": _limit("rpm", _MOST_REQUESTS),
    "parallel": _limit("parallel", _MOST_REQUESTS),
    "tokens_per_day": _limit("tokens_per_day", _MOST_TOKENS),
    "budget": _budget,
    "no_wake": _no_wake,
    "max_hold": _max_hold,
    "priority": _priority,
}
"""Reads the value of each word for a right."""
