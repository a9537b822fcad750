"""Write rows of a table in columns, for people."""

from collections.abc import Sequence


def column_lines(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return a line for each row, every column as wide as its widest cell.

    The first ``left`` columns are texts, and begin in one line; the others are numbers,
    and end in one.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_aligned(row, widths, left)).rstrip() for row in rows]


def _aligned(row: Sequence[str], widths: Sequence[int], left: int) -> list[str]:
    cells = zip(row, widths, strict=True)
    return [
        cell.ljust(width) if index < left else cell.rjust(width)
        for index, (cell, width) in enumerate(cells)
    ]
