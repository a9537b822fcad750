"""List and end pulls of models: ``pulls``."""

from typing import Annotated
from urllib.parse import quote

import typer

from ollama_proxy.cli.command_settings import Config, proxy_client, read_settings
from ollama_proxy.cli.console import out, tell
from ollama_proxy.cli.status_view import pull_line


def pulls(
    config: Config = None,
    *,
    end: Annotated[
        str | None, typer.Option("--end", metavar="MODEL", help="end this one's pull")
    ] = None,
) -> None:
    """List the pulls that run without their client, or end one."""
    client = proxy_client(read_settings(config))
    if end is not None:
        for pull in client.delete(f"/-/pulls/{quote(end, safe='')}")["ended"]:
            tell(f"ended {pull_line(pull)}")
        return
    under_way = client.status()["pulls"]
    for pull in under_way:
        tell(pull_line(pull))
    if not under_way:
        out.print("no pull goes on")
