"""Match requests that the settings ignore as use: health checks that are completions.

A rule is one condition, or several joined by ``&`` that must all hold: the client's
program (``agent=Uptime-Kuma*``), the path (``path=/v1/completions``), or the longest
answer that the request asks for (``tokens<=5``). Pure.
"""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from ollama_proxy.base.parsers import parse_names
from ollama_proxy.core.ollama.loose_json import UNREADABLE, read_loosely
from ollama_proxy.core.ollama.request_fields import BodyFields
from ollama_proxy.core.ollama.routes import Family

_CONDITION = re.compile(
    r"(?:(?P<glob>agent|path)\s*=|(?P<tokens>tokens)\s*<=)\s*(?P<value>.*)", re.DOTALL
)
_MOST_TOKENS = 999_999_999
_MOST_DIGITS = 20
_ENDLESS = 1e18
_WRITE = (
    "write agent=Uptime-Kuma*, path=/v1/completions or tokens<=5, or join some by &"
)


@dataclass(frozen=True, slots=True)
class IgnoreRule:
    """Holds the conditions of one rule; None where any value matches.

    ``agent`` and ``path`` are globs: ``*`` matches any text and ``?`` one character;
    ``agent`` ignores case. ``tokens``: the longest answer.
    """

    agent: str | None = None
    path: str | None = None
    tokens: int | None = None


def parse_ignores(value: object) -> tuple[IgnoreRule, ...]:
    """Return rules from a comma-separated text, or from a list of texts.

    Raises `ValueError` with a message that says what to write instead.
    """
    return tuple(_parse_rule(text) for text in parse_names(value))


def _parse_rule(text: str) -> IgnoreRule:
    conditions: dict[str, str] = {}
    for part in text.split("&"):
        match = _CONDITION.fullmatch(part.strip())
        if match is None or not match["value"]:
            raise ValueError(f"{text!r} is no rule; {_WRITE}")
        name = match["glob"] or match["tokens"]
        if name in conditions:
            raise ValueError(f"{text!r} names {name} twice; make two rules of it")
        conditions[name] = match["value"]
    path, tokens = conditions.get("path"), conditions.get("tokens")
    if path is not None and not path.startswith(("/", "*")):
        raise ValueError(f"{text!r}: a path begins with /; write path=/{path}")
    if all(glob.strip("*") in {"", "/"} for glob in conditions.values()):
        raise ValueError(f"{text!r} is every request, so nothing would wake; {_WRITE}")
    limit = None if tokens is None else _parse_tokens(text, tokens)
    return IgnoreRule(conditions.get("agent"), path, limit)


def _parse_tokens(text: str, number: str) -> int:
    is_number = number.isascii() and number.isdecimal() and len(number) < _MOST_DIGITS
    if not is_number or not 1 <= int(number) <= _MOST_TOKENS:
        raise ValueError(
            f"{text!r}: {number!r} is no number from 1 to {_MOST_TOKENS}; {_WRITE}"
        )
    return int(number)


class IdleIgnores:
    """Tells which requests the rules ignore.

    ``reads_bodies``: some rules need a request's body.
    """

    def __init__(self, rules: Sequence[IgnoreRule]) -> None:
        self._rules = [
            (_compiled(rule.agent, re.IGNORECASE), _compiled(rule.path), rule.tokens)
            for rule in rules
        ]
        self.reads_bodies = any(rule.tokens is not None for rule in rules)

    def __bool__(self) -> bool:
        """Tell whether there are any rules."""
        return bool(self._rules)

    def match(
        self, agent: str, path: str, family: Family, fields: BodyFields | None
    ) -> bool:
        """Tell whether a rule holds; ``fields`` are None if the body can't be read."""
        asked = asked_tokens(family, fields) if self.reads_bodies and fields else None
        return any(
            (agents is None or agents.match(agent) is not None)
            and (paths is None or paths.match(path) is not None)
            and (tokens is None or (asked is not None and asked <= tokens))
            for agents, paths, tokens in self._rules
        )


def _compiled(glob: str | None, flags: int = 0) -> re.Pattern[str] | None:
    """Return a glob as a regular expression whose cost does not grow with the text.

    `fnmatch` also knows sets in brackets; here a bracket matches itself.
    """
    if glob is None:
        return None
    return re.compile(fnmatch.translate(glob.replace("[", "[[]")), flags)


class _Options(msgspec.Struct):
    """Holds the one option that is looked at."""

    num_predict: msgspec.Raw = msgspec.Raw()


def asked_tokens(family: Family, fields: BodyFields) -> int | None:
    """Return how many tokens a request asks for at most; None if it sets no limit.

    Each API family has its own field names; if there are several, the largest counts. 0
    and below mean no limit: -1 and -2 by definition, and 0 in one of Ollama's engines
    (``x/mlxrunner/pipeline.go``).
    """
    if family is Family.NATIVE:
        options = read_loosely(bytes(fields.options), _Options)
        limits = [options.num_predict if options is not None else msgspec.Raw()]
    else:
        limits = [
            fields.max_tokens,
            fields.max_completion_tokens,
            fields.max_output_tokens,
        ]
    numbers = [_number(limit) for limit in limits if bytes(limit) not in {b"", b"null"}]
    if not numbers or None in numbers:
        return None
    return max(int(number) for number in numbers if number is not None)


def _number(raw: msgspec.Raw) -> float | None:
    """Return a number from 1 on; None for anything else."""
    try:
        value = msgspec.json.decode(raw, type=float)
    except UNREADABLE:
        return None
    return value if 1 <= value < _ENDLESS else None
