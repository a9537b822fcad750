"""Read the words for the rights of a key: options, fields of JSON, lines of a file.

The words are the same everywhere, but that an option is written with dashes. ``none``
takes a limit away. Every word that is wrong yields a sentence.
"""

import datetime
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import ProxyError
from ollama_proxy.base.moments import is_date_known
from ollama_proxy.base.parsers import parse_duration, parse_names
from ollama_proxy.core.access.keys import DEFAULT_ROUTES, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.ollama.model_globs import ModelGlob

MILLIONTHS: Final = 1_000_000
"""How many units of a budget make one of the currency."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
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
_LONGEST_LIFE_S = 100 * 365 * 86_400.0


class KeyFaultsError(ProxyError):
    """Reports wrong words for a key: every fault is listed, not only the first."""

    reason = "key_faults"

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """Holds what the words of a key can set: its rights, and when it expires."""

    rights: Rights
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Dates:
    """Converts dates that people write to moments of a clock.

    ``is_of_file``: a file is read again and again, so it names dates, which may have
    passed, and no times such as ``30d``, which count from now.
    """

    clock: Clock
    is_of_file: bool = False

    def moment(self, text: object) -> float:
        """Return when a key expires. Raises `ValueError`."""
        date = _date(text)
        if date is not None:
            wall = self.clock.wall()  # a machine without a battery boots in 1970
            here = wall if is_date_known(wall) else self.clock.now()
            left_s = date.timestamp() - here
        else:
            left_s = self._length(text)
        is_past = left_s < 1.0 and not self.is_of_file
        if is_past or left_s >= _LONGEST_LIFE_S:
            raise ValueError(f"{shown(text)} is not in the years to come; {self._how}")
        return self.clock.now() + left_s

    def _length(self, text: object) -> float:
        if self.is_of_file:
            raise ValueError(f"{shown(text)} is not a date; {self._how}")
        try:
            return parse_duration(text)
        except ValueError:
            message = f"{shown(text)} is neither a time nor a date; {self._how}"
            raise ValueError(message) from None

    @property
    def _how(self) -> str:
        return "write 2027-01-31" if self.is_of_file else "write 30d or 2027-01-31"


def read_terms(
    words: Mapping[str, object], before: KeyTerms, dates: Dates
) -> tuple[KeyTerms, list[str]]:
    """Return what words make of the terms of a key, and a sentence for each fault."""
    faults: list[str] = []
    rights, expires_at = before.rights, before.expires_at
    for word, value in words.items():
        try:
            if word == "expires":
                expires_at = None if _is_none(value) else dates.moment(value)
            else:
                rights = _RIGHTS.get(word, _refuse)(value, rights)
        except ValueError as error:
            faults.append(f"{_shown_word(word)}: {error}")
    return KeyTerms(rights, expires_at), faults


def name_fault(name: object) -> str | None:
    """Return what is wrong with a name for a key; None if it may be one."""
    if name is None:
        return "name: a key needs one"
    if isinstance(name, str) and is_like_key(name):
        return "name: what begins with op_ or opt_ looks like a key, so it is no name"
    if isinstance(name, str) and _NAME.fullmatch(name):
        return None
    return (
        f"name: {shown(name)} is no name for a key; write up to 64 letters, digits and"
        " . _ @ -, the first a letter or digit"
    )


def shown(value: object) -> str:
    """Return a value in quotes, cut where it is long."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")


def guess(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence on an unknown word: what is close, else all."""
    every = list(known)
    close = difflib.get_close_matches(word[:_LONGEST_SHOWN], every, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(every)}"


def is_like_key(name: str) -> bool:
    """Tell whether a name looks like the text of a key or of the order token."""
    return name.startswith(("op_", "opt_"))


def _shown_word(word: str) -> str:
    """Return a word as a sentence may begin with it, whatever a client sent."""
    if re.fullmatch(r"[a-z_]{1,40}", word):
        return word
    return shown(word)


def _refuse(_value: object, _rights: Rights) -> Rights:
    raise ValueError("a key has no such word; known: " + ", ".join(TERM_WORDS))


def _is_none(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in _NONE)


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str | list | tuple):
        return parse_names(value)
    raise ValueError(f"{shown(value)} is not a list of names")


def _models(value: object, rights: Rights) -> Rights:
    if _is_none(value):
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
            raise ValueError(f"{shown(name)} is no right; {guess(name, known)}")
    return replace(rights, routes=frozenset(map(RouteClass, names)))


def _limit(field: str, most: int) -> Callable[[object, Rights], Rights]:
    """Return a reader of a limit that is a whole number from 1 on."""

    def read(value: object, rights: Rights) -> Rights:
        if _is_none(value):
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
    if _is_none(value):
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
    if _is_none(value):
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
    number = 0 if _is_none(value) else _whole(value)
    if number is None or abs(number) > _HIGHEST_PRIORITY:
        most = _HIGHEST_PRIORITY
        raise ValueError(
            f"{shown(value)} is not a whole number from -{most} to {most}; write one;"
            " a higher one is served first"
        )
    return replace(rights, priority=number)


def _date(value: object) -> datetime.datetime | None:
    """Return a date that a person wrote, UTC by default; None if it is none."""
    if isinstance(value, datetime.datetime):
        date = value
    elif isinstance(value, datetime.date):
        date = datetime.datetime(value.year, value.month, value.day)  # noqa: DTZ001 - below
    elif isinstance(value, str) and "-" in value:
        try:
            date = datetime.datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    else:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=datetime.UTC)


_RIGHTS: Final[Mapping[str, Callable[[object, Rights], Rights]]] = {
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

TERM_WORDS: Final = (*_RIGHTS, "expires")
"""Every word for what a key may do, and until when."""
