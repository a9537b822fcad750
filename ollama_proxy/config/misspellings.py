"""Find environment variables whose names are almost those of settings."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from ollama_proxy.config.foreign_variables import is_foreign

_LETTERS = 2
_OWN_WORD = 6  # letters of EXOSCALE, OLLAMA, PRELOAD: only our names begin with these


class Misspelt(NamedTuple):
    """Names a variable that no program reads, the likely right one, and its owner."""

    name: str
    meant: str
    group: str


def misspelt_names(
    given: Iterable[str],
    known: Mapping[str, Collection[str]],
    foreign: Collection[str] = (),
) -> Iterator[Misspelt]:
    """Yield the given variables that are within two letters of a known one.

    ``known``: the variables of settings, by group. Variables of other programs are
    skipped: those in ``foreign``, and those that `is_foreign` recognises.
    """
    every = {name: group for group, names in known.items() for name in names}
    for name in sorted(given):
        if name in every or name in foreign or is_foreign(name):
            continue
        near = [(_distance(name, one), one) for one in every if _may_mean(name, one)]
        letters, meant = min(near, default=(_LETTERS + 1, ""))
        if letters <= _LETTERS:
            yield Misspelt(name, meant, every[meant])


def _may_mean(name: str, known: str) -> bool:
    """Tell whether a name may be a misspelt one, before its letters are compared.

    ``MY_APP`` is two letters from ``FLY_APP`` and ``CPU_COUNT`` one from ``GPU_COUNT``.
    So a short first word must be the same, or an anagram.
    """
    if abs(len(name) - len(known)) > _LETTERS:
        return False
    # A change of one letter removes one from the set and adds one: at most two. This
    # avoids nearly all comparisons, which took 5 % of the start-up time of a command.
    if len(set(name) ^ set(known)) > 2 * _LETTERS:
        return False
    word = known.partition("_")[0]
    return (
        len(word) >= _OWN_WORD
        or name.startswith(word)
        or sorted(name.partition("_")[0]) == sorted(word)
    )


def _distance(one: str, other: str) -> int:
    """Return how many letters are added, missing, changed or swapped with the next.

    The optimal string alignment distance: Damerau-Levenshtein, except that no letter is
    moved twice.
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, wanted in enumerate(other, 1):
            best = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != wanted))
            swapped = i > 1 and j > 1 and one[i - 2 : i] == wanted + other[j - 2]
            row.append(min(best, before[j - 2] + 1) if swapped else best)
        before, last = last, row
    return last[-1]
