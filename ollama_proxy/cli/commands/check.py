"""Examine what `serve` needs, and ask whether it serves: ``check``, ``healthcheck``."""

import asyncio

import typer

from ollama_proxy.cli.command_settings import Config, environment, read_settings
from ollama_proxy.cli.console import out
from ollama_proxy.cli.status_view import escape


def check(config: Config = None) -> None:
    """Examine settings, credentials and programs; create nothing."""
    from ollama_proxy.cli.doctor import examine  # noqa: PLC0415 - slow to import

    findings = asyncio.run(examine(read_settings(config)))
    for finding in findings:
        mark = "[yellow]warn[/] " if finding.warns else "[green]ok[/]   "
        mark = mark if finding.ok else "[red]wrong[/]"
        out.print(f"{mark} {escape(finding.subject)}: {escape(finding.detail)}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def healthcheck(config: Config = None) -> None:
    """Ask the proxy that listens on this machine whether it serves."""
    from ollama_proxy.cli.healthcheck import run  # noqa: PLC0415 - `main` does without us

    raise typer.Exit(run(environment, str(config) if config else None))
