"""Usage on a terminal and for spreadsheets."""

import csv
import io
from typing import Any

import pytest

from ollama_proxy.cli.usage_view import COLUMNS, usage_csv, usage_lines


def row(**fields: Any) -> dict[str, Any]:
    numbers = dict.fromkeys(COLUMNS, 0) | {"seconds": 0.0}
    return numbers | fields


ROWS = [
    row(key="laptop", model="m:latest", requests=12, output_tokens=345, seconds=6.25),
    row(key="phone", model="", refused=3),
]


def test_rows_stand_in_columns_below_their_titles_and_above_their_sums() -> None:
    lines = usage_lines(ROWS, ["key", "model"])

    assert lines == [
        "KEY     MODEL     REQUESTS  PROMPT  OUTPUT  ESTIMATED  SECONDS  REFUSED",
        "laptop  m:latest        12       0     345          0      6.2        0",
        "phone   -                0       0       0          0      0.0        3",
        "all                     12       0     345          0      6.2        3",
    ]


def test_csv_has_a_line_of_titles_and_no_sums() -> None:
    text = usage_csv(ROWS, ["key", "model"])

    read = list(csv.reader(io.StringIO(text)))
    assert read[0] == ["key", "model", *COLUMNS]
    assert read[1] == ["laptop", "m:latest", "12", "0", "345", "0", "6.25", "0"]
    assert len(read) == 3


@pytest.mark.parametrize("name", ["=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)"])
def test_no_name_is_a_formula_in_a_spreadsheet(name: str) -> None:
    text = usage_csv([row(model=name)], ["model"])

    assert list(csv.reader(io.StringIO(text)))[1][0] == f"'{name}"


@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\nb", 'a"b,c', "\u202eb"])
def test_a_name_moves_no_cursor_and_begins_no_line(name: str) -> None:
    (_, line, _) = usage_lines([row(model=name)], ["model"])
    text = usage_csv([row(model=name)], ["model"])

    assert line.isprintable()
    assert len(list(csv.reader(io.StringIO(text)))) == 2
