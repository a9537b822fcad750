"""Show what keys used: as columns for people, or as CSV for a spreadsheet."""

import csv
import io
from collections.abc import Sequence
from typing import Any, Final

from ollama_proxy.base.terminal_text import shown
from ollama_proxy.cli.columns import column_lines

COLUMNS: Final = (
    "requests",
    "prompt_tokens",
    "output_tokens",
    "estimated",
    "seconds",
    "refused",
)
"""The numbers of a row, in this order."""

_NAMED = ("day", "key", "model")
_TITLES = {"prompt_tokens": "PROMPT", "output_tokens": "OUTPUT"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def usage_lines(rows: Sequence[dict[str, Any]], by: Sequence[str]) -> list[str]:
    """Return a line for each row below their titles, and one of their sums."""
    names = [name for name in _NAMED if name in by]
    titles = [*names, *COLUMNS]
    table = [[_TITLES.get(title, title).upper() for title in titles]]
    for row in rows:
        named = [shown(str(row[name])) or "-" for name in names]
        table.append([*named, *(_number(row[column]) for column in COLUMNS)])
    sums = [_number(sum(row[column] for row in rows)) for column in COLUMNS]
    table.append(["all", *[""] * (len(names) - 1), *sums])
    return column_lines(table, left=len(names))


def usage_csv(rows: Sequence[dict[str, Any]], by: Sequence[str]) -> str:
    """Return rows as CSV (RFC 4180) with a line of titles."""
    names = [name for name in _NAMED if name in by]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*names, *COLUMNS])
    for row in rows:
        named = [_cell(str(row[name])) for name in names]
        writer.writerow([*named, *(row[column] for column in COLUMNS)])
    return text.getvalue()


def _number(value: float) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    text = shown(text)
    return f"'{text}" if text.startswith(_FORMULA) else text
