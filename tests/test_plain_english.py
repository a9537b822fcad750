"""Docstrings and comments are plain: a verb and its object first, and no riddles."""

import ast
import io
import re
import tokenize
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

UNCLEAR = re.compile(
    r"\b(told|said|came|heard|spoken|nobody|anybody|whoever|of use|no use|at work"
    r"|what (comes|came|is to)|one that is not|there anyway|lives? by|of before"
    r"|(is|are|was|were) to be|take note|(?<!person )who)\b",
    re.IGNORECASE,
)
"""Words that leave a reader to guess: passives without a subject ("it is told"),
pronouns without a noun ("who sends no more"), and metaphors ("a proxy that lives by
it"). A person may be one who does something; names of code, in backticks, and words
in quotes are not looked at."""


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


def docstrings(source: str) -> Iterator[str]:
    """Yield every text that stands alone: of modules, classes, functions, names."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


def comments(source: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def unclear_word(text: str) -> str | None:
    """Return the first word of a text that leaves a reader to guess."""
    found = UNCLEAR.search(re.sub(r"`+[^`]*`+|\"[^\"]*\"", "", " ".join(text.split())))
    return found[0] if found else None


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


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_docstring_or_comment_leaves_a_reader_to_guess(folder: Path) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {word!r} in: {' '.join(text.split())[:80]}"
        for path in sorted(folder.glob("*.py" if folder == PACKAGE else "**/*.py"))
        for source in [path.read_text("utf-8")]
        for text in (*docstrings(source), *comments(source))
        if (word := unclear_word(text)) is not None
    ]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "# nobody waits for it",
        "Return what\n    came.",
        "The clients that are told of a loss.",
        "Ends with who asked.",
        "What is to be sent waits.",
    ],
)
def test_an_unclear_word_is_found(text: str) -> None:
    assert unclear_word(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "``told``: the operation in a line.",
        "Print it for the person who typed the command.",
        'The last line is "the cloud said no".',
    ],
)
def test_names_and_quotes_are_not_looked_at(text: str) -> None:
    assert unclear_word(text) is None


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
