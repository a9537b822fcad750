"""The first line of a docstring says what is done: a verb, then its object."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ollama_proxy"
FOLDERS = [
    PACKAGE,
    *sorted(path.parent for path in PACKAGE.glob("*/__init__.py")),
    ROOT / "backends",
    ROOT / "bench",
]
NO_VERBS = frozenset(
    "a all an another any anything around as at by each every everything for from how"  # noqa: SIM905
    " if in it its no nobody none nothing of on one somebody something that the there"
    " these this those to two until what whatever when where whether which who whoever"
    " whom whose why with without".split()
)
RIDDLES = re.compile(
    r"\b(whoever|nobody|what comes|what came|who sends|(is|are|was) (told|to be))\b",
    re.IGNORECASE,
)


def first_lines(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case (
                ast.Module()
                | ast.ClassDef()
                | ast.FunctionDef()
                | ast.AsyncFunctionDef()
            ):
                if text := ast.get_docstring(node):
                    yield text.splitlines()[0]


def is_plain(line: str) -> bool:
    first = re.match(r"[^\s:,.]*", line)
    is_verb = first is not None and first[0].lower().strip("`") not in NO_VERBS
    return is_verb and not RIDDLES.search(line)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_docstring_begins_with_a_verb_and_no_riddle(folder: Path) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in sorted(folder.glob("*.py" if folder == PACKAGE else "**/*.py"))
        for line in first_lines(path.read_text("utf-8"))
        if not is_plain(line)
    ]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "What comes before it is refused.",
        "Whether it is told.",
        "The list of nothing in particular.",
        "Give what is under way a moment: who sends no more may still read.",
        "Write what is to be written.",
    ],
)
def test_a_riddle_is_found(line: str) -> None:
    assert not is_plain(line)


def test_a_plain_line_passes() -> None:
    assert is_plain("Abort with a TCP RST: some clients take a close for an end.")
