"""Show what each pool would do now, and why: ``plan``."""

from typing import Annotated, Any

import typer

from ollama_proxy.cli.command_settings import Config, proxy_client, read_settings
from ollama_proxy.cli.commands.instance import PoolName
from ollama_proxy.cli.console import tell


def plan(
    config: Config = None,
    *,
    pool: PoolName = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="say the figures and the reasons")
    ] = False,
) -> None:
    """Show how many instances each pool wants now, and what it would start or stop."""
    client = proxy_client(read_settings(config))
    for one in client.get("/-/plan", pool=pool)["pools"]:
        tell(_line(one))
        for sentence in one["plan"] if explain else ():
            tell(f"  {sentence}")


def _line(one: dict[str, Any]) -> str:
    """Return the plan of one pool: ``main: 2 wanted, 1 ready; starts 1``."""
    steps = [
        f"{verb} {', '.join(names)}"
        for verb, names in (("starts", one["starts"]), ("stops", one["drains"]))
        if names
    ]
    told = "; ".join(steps) or "nothing to do"
    return f"{one['name']}: {one['wanted']} wanted, {one['ready']} ready; {told}"
