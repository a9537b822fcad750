"""Show what keys used, through the running proxy: ``usage``."""

import sys
from typing import Annotated

import typer

from ollama_proxy.base.errors import SettingsError
from ollama_proxy.cli.admin_client import ProxyAnswerError
from ollama_proxy.cli.command_settings import Config, Json, proxy_client, read_settings
from ollama_proxy.cli.console import err, tell
from ollama_proxy.cli.status_view import as_line, escape
from ollama_proxy.cli.usage_view import usage_csv, usage_lines

_BAD_REQUEST = 400


def usage(
    config: Config = None,
    *,
    by: Annotated[
        str, typer.Option(metavar="FIELDS", help="key, model or day; some with commas")
    ] = "key",
    days: Annotated[
        str, typer.Option(metavar="N", help="how many days, today (UTC) included")
    ] = "30",
    key: Annotated[
        str | None, typer.Option(metavar="NAME", help="of this key alone, or its id")
    ] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
) -> None:
    """Show what keys used: requests, tokens, seconds, refusals."""
    client = proxy_client(read_settings(config))
    try:
        told = client.get("/-/usage", by=by, days=days, key=key)
    except ProxyAnswerError as error:
        if error.status != _BAD_REQUEST or "error" not in error.body:
            raise
        raise SettingsError([f"--{error.body['error']}"]) from error
    rows, fields = told["usage"], told["by"]
    if as_json:
        sys.stdout.write(as_line(told) + "\n")
    elif as_csv:
        sys.stdout.write(usage_csv(rows, fields))
    elif rows:
        for line in usage_lines(rows, fields):
            tell(line)
    else:
        tell(f"no key was used in the last {told['days']} days")
    if told["left_out"]:
        left = f"{told['left_out']} rows of earlier days are left out; ask for less"
        err.print(escape(f"{left}: --days, --key, or fewer fields in --by"))
