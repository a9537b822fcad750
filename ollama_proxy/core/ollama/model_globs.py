"""Find which of several lists of models has a name: globs in order, first match wins.

A glob matches names as Ollama resolves them: ``llama3`` is ``llama3:latest`` alone,
``llama3:*`` all its tags, ``llama3*`` all names with that beginning, ``*-cloud`` all
with that end, whether of the name or of the tag. ``*`` is any letters; ``?`` one letter
except ``/`` and ``:``. In a glob that contains Ollama's registry or ``library/``, ``*``
does not match ``/``: ``library/*`` is what Ollama itself publishes.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ollama_proxy.core.ollama.model_names import full_model_name

_WRITTEN_OUT = re.compile(r"(https?://)?(registry\.ollama\.ai/|library/)", re.I)
_UNUSABLE = re.compile(r"[\s\[\]{}()!\\|^$,]")
_RUN = re.compile(r"[*?]{2,}")
_INNER = "\x00"
"""Stands for a ``*`` that does not match ``/``."""
_STAR = re.compile(f"[*{_INNER}]")
_NO_SLASH = "[^/]"
_ONE = "[^/:]"
_LATEST = ":latest"


@dataclass(frozen=True, slots=True)
class ModelGlob:
    """Matches some models; ``text``: as the person wrote it.

    ``full_globs``: the globs of full names that it stands for, each with a tag. Raises
    `ValueError` for characters that no name of a model has.
    """

    text: str
    full_globs: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _covering: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ways = _full_globs(self.text)
        pattern = re.compile("|".join(_matcher(way) for way in ways), re.DOTALL)
        covering = re.compile("|".join(_coverer(way) for way in ways), re.DOTALL)
        object.__setattr__(self, "full_globs", ways)
        object.__setattr__(self, "_pattern", pattern)
        object.__setattr__(self, "_covering", covering)

    def matches(self, full_name: str) -> bool:
        """Tell whether a name is meant, as `full_model_name` returns it."""
        return self._pattern.fullmatch(full_name) is not None

    def covers(self, other: "ModelGlob") -> bool:
        """Tell whether every name that ``other`` matches is matched by this glob too.

        The stars of ``other`` are treated as letters, which only a star of this glob
        covers.
        """
        return all(self._covering.fullmatch(way) for way in other.full_globs)


class ModelGroups:
    """Finds the group of a model: that of the first glob that matches.

    ``groups``: names of groups with their globs, both in order.
    """

    def __init__(self, groups: Iterable[tuple[str, Iterable[ModelGlob]]]) -> None:
        self._globs = [(glob, name) for name, globs in groups for glob in globs]

    def group_of(self, model: str) -> str | None:
        """Return the group of a model, however its name is written; None: of none."""
        full = full_model_name(model)
        return next((name for glob, name in self._globs if glob.matches(full)), None)

    def swallowed(self) -> Iterator[tuple[ModelGlob, str, ModelGlob, str]]:
        """Yield each glob that can never match, because an earlier one covers it.

        Each as (later glob, its group, earlier glob, its group).
        """
        for place, (later, its) in enumerate(self._globs):
            for earlier, group in self._globs[:place]:
                if earlier.covers(later):
                    yield later, its, earlier, group
                    break


def _full_globs(text: str) -> tuple[str, ...]:
    """Return the globs of full names that a glob stands for; each has a tag.

    A glob with a ``*`` and without a tag also matches tags: for each ``*`` there is one
    way in which the tag begins within it. The other way is the tag ``latest``.
    """
    if found := _UNUSABLE.search(text):
        raise ValueError(
            f"{text!r}: {found[0]!r} stands in no name of a model; write a name, with *"
            " for any letters and ? for one"
        )
    glob = _RUN.sub(_in_order, text.strip())
    full = full_model_name(glob)
    ways = [full]
    if ":" not in glob.rpartition("/")[2]:
        untagged = full.removesuffix(_LATEST)
        last = untagged.rfind("/")
        ways += [
            f"{untagged[:place]}*:{untagged[place:]}"
            for place, letter in enumerate(untagged)
            if letter == "*" and place > last
        ]
    if _WRITTEN_OUT.match(glob):
        ways = [way.replace("*", _INNER) for way in ways]
    return tuple(ways)


def _in_order(run: re.Match[str]) -> str:
    """Write a run of stars and question marks in one order: ``*?`` is ``?*``."""
    return "?" * run[0].count("?") + "*" * ("*" in run[0])


def _matcher(way: str) -> str:
    """Return the regular expression of a glob, which takes linear time."""
    letter = _NO_SLASH if _INNER in way else "."
    first, *others = (_literal(part, _ONE) for part in _STAR.split(way))
    if not others:
        return first
    # Matching the first occurrence of a piece is never worse than a later one, so no
    # backtracking is needed: (?>…) prevents a client's name from taking minutes.
    inner = "".join(f"(?>{letter}*?{part})" for part in others[:-1] if part)
    return f"{first}{inner}{letter}*{others[-1]}"


def _coverer(way: str) -> str:
    """Return what matches each glob that a glob covers, its stars being letters."""
    any_letters = r"[^/*]*" if _INNER in way else ".*"
    one = rf"[^/:*{_INNER}]"
    return any_letters.join(_literal(part, one) for part in _STAR.split(way))


def _literal(part: str, one: str) -> str:
    return "".join(one if letter == "?" else re.escape(letter) for letter in part)
