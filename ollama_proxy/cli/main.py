"""Parse the command line, call the command, return an exit code.

0: done. 1: it failed. 2: the settings, or what they refer to, are wrong.
"""

import contextlib
import sys
from typing import Annotated, NoReturn

import typer

from ollama_proxy import __version__
from ollama_proxy.base.errors import (
    BackendError,
    ProxyError,
    SettingsError,
    StartupError,
)
from ollama_proxy.base.library_log import traced
from ollama_proxy.base.standard_streams import (
    UnwrittenError,
    discard_unwritten,
    name_faults_of_output,
    open_missing_streams,
)
from ollama_proxy.cli.commands.check import check, healthcheck
from ollama_proxy.cli.commands.deployment import delete, deploy
from ollama_proxy.cli.commands.instance import abandon, start, status, stop, wake
from ollama_proxy.cli.commands.journal import journal
from ollama_proxy.cli.commands.keys import keys
from ollama_proxy.cli.commands.node import node
from ollama_proxy.cli.commands.node_token import node_token
from ollama_proxy.cli.commands.nodes import nodes
from ollama_proxy.cli.commands.plan import plan
from ollama_proxy.cli.commands.pulls import pulls
from ollama_proxy.cli.commands.serve import serve
from ollama_proxy.cli.commands.sweep import sweep
from ollama_proxy.cli.commands.usage import usage
from ollama_proxy.cli.console import err, out
from ollama_proxy.cli.status_view import escape

_USAGE = 2

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Ollama on :11434, on a machine that exists only while somebody uses it.",
)
for _command in (
    *(serve, status, wake, start, stop, abandon, pulls, plan, journal, usage),
    *(deploy, delete, sweep, check, healthcheck, node, node_token),
):
    app.command()(_command)
app.add_typer(keys, name="key")
app.add_typer(nodes, name="nodes")


def _version(value: bool) -> None:  # noqa: FBT001 - typer calls it with the flag
    if value:
        out.print(f"ollama-proxy {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    _show_version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="say which"),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line; a fault is one sentence on stderr, no traceback."""
    open_missing_streams()
    name_faults_of_output()
    try:
        _run()
    finally:
        discard_unwritten()


def _run() -> None:
    try:
        app()
    except SettingsError as error:
        _end(_USAGE, *error.faults)
    except StartupError as error:
        _end(_USAGE, str(error))
    except (ProxyError, BackendError) as error:
        _end(1, str(error))
    except UnwrittenError as error:
        _end(
            1, f"standard output can't be written ({error.strerror}); send it elsewhere"
        )
    except OSError as error:
        _end(1, _refused(error))
    except Exception as error:
        _end(1, _own_fault(error))


def _end(code: int, *sentences: str) -> NoReturn:
    """Print why the command ends, if stderr is open, and end it."""
    with contextlib.suppress(OSError):
        for sentence in sentences:
            err.print(f"ollama-proxy: {escape(sentence)}")
    sys.exit(code)


def _own_fault(error: Exception) -> str:
    """Return a fault of the program's own, by its class and place, in a sentence."""
    told = traced(error)
    return (
        f"a fault of ollama-proxy itself: {told['error']} at"
        f" {' < '.join(told['at'][:-4:-1])}; please report this line, and what answered"
    )


def _refused(error: OSError) -> str:
    """Return what the machine did not let a command do, in a sentence."""
    where = f" {error.filename!r}" if error.filename else ""
    return (
        f"this machine refuses{where}: {error.strerror or error}; see to its disk and"
        " rights, or set OLLAMA_PROXY_STATE_DIR or TMPDIR to another folder"
    )
