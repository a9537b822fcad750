"""Find the line of each table and key of a TOML file, which `tomllib` does not tell."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Path = tuple[str, ...]
"""The names of a table or of a key, from the top of the file."""

_SPACE = re.compile(r"(?:\s|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_WORD = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_TEXT = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r"""|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""",
    re.DOTALL,
)


def find_lines(text: str) -> Mapping[Path, int]:
    """Return the line where each path of a file begins, counted from 1.

    ``text`` is known to be TOML. What stands within an inline table or a list has no
    line of its own: see `line_of`.
    """
    return _Scan(text).lines()


def line_of(lines: Mapping[Path, int], path: Path) -> int | None:
    """Return the line of a path, else of what it stands in; None: nowhere."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


@dataclass(frozen=True, slots=True)
class FilePlaces:
    """Says where in the settings file something stands, for people."""

    file: str = ""
    lines: Mapping[Path, int] = field(default_factory=dict)

    def place(self, *path: str) -> str:
        """Return ``FILE:LINE: offers.vienna.zone``."""
        line = line_of(self.lines, path)
        where = self.file if line is None else f"{self.file}:{line}"
        return f"{where}: {'.'.join(path)}"

    def of_keys(self, keys: Iterable[str], *table: str) -> dict[str, str]:
        """Return where keys of a table stand, by their long names."""
        return {".".join((*table, key)): self.place(*table, key) for key in keys}


class _Scan:
    """Walks over the statements of a file."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[Path, int] = {}

    def lines(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(_SPACE) < len(self._text):
            begun, line = self._at, self._text.count("\n", 0, self._at) + 1
            if self._text[self._at] == "[":
                self._at += 1 + self._text.startswith("[[", self._at)
                table = self._name()
                self._note(table, line)
                self._at = self._end_of_line()
            else:
                self._note(table + self._name(), line)
                self._skip_value()
            if self._at <= begun:  # no TOML, after all
                break
        return self._found

    def _note(self, path: Path, line: int) -> None:
        """Note the first line of a path, and of each that it stands in."""
        for length in range(1, len(path) + 1):
            self._found.setdefault(path[:length], line)

    def _name(self) -> Path:
        """Read a name with its dots."""
        parts: list[str] = []
        while (word := _WORD.match(self._text, self._skip(_BLANK))) is not None:
            self._at = word.end()
            parts.append(_plain(word[0]))
            if not self._text.startswith(".", self._skip(_BLANK)):
                break
            self._at += 1
        return tuple(parts)

    def _skip_value(self) -> None:
        """Go to the end of a value: of its line, or of the list that it is."""
        depth = 0
        while self._at < len(self._text):
            if (quoted := _TEXT.match(self._text, self._at)) is not None:
                self._at = quoted.end()
                continue
            letter = self._text[self._at]
            if letter == "#":
                self._at = self._end_of_line()
                continue
            if letter == "\n" and depth <= 0:
                return
            depth += (letter in "[{") - (letter in "]}")
            self._at += 1

    def _skip(self, what: re.Pattern[str]) -> int:
        if (found := what.match(self._text, self._at)) is not None:
            self._at = found.end()
        return self._at

    def _end_of_line(self) -> int:
        end = self._text.find("\n", self._at)
        return len(self._text) if end < 0 else end


def _plain(word: str) -> str:
    """Return a name without its quotes."""
    if word[0] not in "\"'":
        return word
    return str(tomllib.loads(f"name = {word}")["name"])
