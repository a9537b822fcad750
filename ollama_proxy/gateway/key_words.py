"""Read the words for the rights of a key: options, fields of JSON, lines of a file.

The words are the same everywhere, but that an option is written with dashes. ``none``
takes a limit away. Every word that is wrong yields a sentence.
"""

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import ProxyError
from ollama_proxy.base.moments import is_date_known
from ollama_proxy.base.parsers import parse_duration
from ollama_proxy.core.access.keys import Rights
from ollama_proxy.gateway.key_text import OUR_PREFIXES
from ollama_proxy.gateway.right_words import RIGHT_WORDS, is_none, shown

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_LONGEST_LIFE_S = 100 * 365 * 86_400.0
_EARLIEST = (
    1.0  # a file may name a date long ago: what falls before 1970 has passed, too
)


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
        return max(_EARLIEST, self.clock.now() + left_s)

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
                expires_at = None if is_none(value) else dates.moment(value)
            else:
                rights = RIGHT_WORDS.get(word, _refuse)(value, rights)
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


def is_like_key(name: str) -> bool:
    """Tell whether a name looks like the text of a key or of the order token."""
    return name.startswith(OUR_PREFIXES)


def _shown_word(word: str) -> str:
    """Return a word as a sentence may begin with it, whatever a client sent."""
    if re.fullmatch(r"[a-z_]{1,40}", word):
        return word
    return shown(word)


def _refuse(_value: object, _rights: Rights) -> Rights:
    raise ValueError("a key has no such word; known: " + ", ".join(TERM_WORDS))


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


TERM_WORDS: Final = (*RIGHT_WORDS, "expires")
"""Every word for what a key may do, and until when."""
