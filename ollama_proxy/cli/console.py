"""Print what commands say, and ask a person."""

import sys

import typer
from rich.console import Console

from ollama_proxy.base.errors import StartupError
from ollama_proxy.cli.status_view import escape

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def tell(line: str) -> None:
    """Print a line as it is, whatever marks are in it."""
    out.print(escape(line))


def has_colours() -> bool:
    """Tell whether standard error takes colours: see NO_COLOR and TERM=dumb."""
    return err.color_system is not None and not err.no_color


def confirm(question: str, *, yes: bool) -> None:
    """Ask a person before a deletion; end the program if the answer is not yes.

    Raises `StartupError` without a terminal.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise StartupError(
            f"{question} There is no terminal to answer at, so nothing was touched;"
            " --yes answers"
        )
    typer.confirm(question, abort=True)
