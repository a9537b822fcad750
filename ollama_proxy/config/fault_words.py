"""Say what is wrong with settings: the place, the value and what is known instead."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ollama_proxy.base.fields import is_secret, shown_default, shown_name
from ollama_proxy.base.upstream_url import shown_input, without_logins

M = TypeVar("M", bound=BaseModel)

_UNKNOWN = "extra_forbidden"  # its value may be a secret under a misspelt name
_FORM = "string_pattern_mismatch"

_LINE = re.compile(r"[^\n]*?:(\d+): ")


def guess(name: str, known: Sequence[str]) -> str:
    """Return the end of a sentence on an unknown name: what is close, else all."""
    close = difflib.get_close_matches(name, known, n=1)
    every = ", ".join(dict.fromkeys(known))
    return f"; did you mean {close[0]}?" if close else f"; known: {every}"


def sentences(
    error: ValidationError,
    prefix: str,
    origin: Mapping[str, str],
    every: Mapping[str, FieldInfo],
) -> Iterator[str]:
    """Yield a sentence for each value that is wrong; ``prefix`` names its table."""
    for fault in error.errors():
        key = str(fault["loc"][0]) if fault["loc"] else ""
        name = f"{prefix}{key}" or "settings"
        name = name if name in every else name.partition(".")[0]
        field = every.get(name)
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == _FORM and field is not None:
            message = "it has another form than it should"
            if (example := shown_default(field)).isascii():
                message += f"; write one like {example}"
        where, shown = origin.get(name, name), ""
        if field is not None and fault["input"] is None:  # it stands nowhere
            where = shown_name(name, field)
        elif fault["type"] != _UNKNOWN and not is_secret(field):
            shown = shown_input(fault["input"], message)
        yield f"{where}: {without_logins(message)}{shown}"


def validated(
    kind: type[M],
    values: Mapping[str, Any],
    prefix: str,
    origin: Mapping[str, str],
    faults: list[str],
) -> M:
    """Return the valid part of a table; add a sentence to ``faults`` for the rest.

    So the other values are checked as well, and all faults are reported at once.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fields = {f"{prefix}{key}": field for key, field in kind.model_fields.items()}
        faults += sentences(error, prefix, origin, fields)
        wrong = {fault["loc"][0] for fault in error.errors() if fault["loc"]}
        right = {key: value for key, value in values.items() if key not in wrong}
        return kind.model_validate(right)


def by_line(faults: Iterable[str]) -> list[str]:
    """Return sentences by the lines that they begin with, each once."""
    return sorted(dict.fromkeys(faults), key=_line)


def _line(fault: str) -> int:
    found = _LINE.match(fault)
    return int(found[1]) if found else 0
