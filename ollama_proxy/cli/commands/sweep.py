"""End strays, our own or another deployment's: ``sweep``."""

import asyncio
from functools import partial
from typing import Annotated, Any

import typer

from ollama_proxy.base.errors import ProxyError, StartupError
from ollama_proxy.cli.admin_client import ProxyUnreachableError
from ollama_proxy.cli.command_settings import Config, proxy_client, read_settings
from ollama_proxy.cli.console import confirm, out, tell
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.record import LaunchId

_DryRun = Annotated[bool, typer.Option("--dry-run", help="only list")]
_Expired = Annotated[
    bool, typer.Option("--expired", help="any deployment's, past their lease")
]
_AllOwners = Annotated[
    bool, typer.Option("--all-owners", help="only list every deployment's")
]
_Owner = Annotated[
    str | None,
    typer.Option("--owner", metavar="ID", help="delete what this owner id has"),
]
_AdoptOwner = Annotated[
    str | None,
    typer.Option("--adopt-owner", metavar="ID", help="go on as this owner id"),
]
_Launches = Annotated[
    list[str] | None,
    typer.Option("--launch", metavar="ID", help="although a proxy lives by it"),
]
_Yes = Annotated[bool, typer.Option("--yes", help="do not ask")]
_Stopped = Annotated[
    bool, typer.Option("--stopped", help="also those kept for the next launch")
]


def sweep(
    config: Config = None,
    *,
    dry_run: _DryRun = False,
    expired: _Expired = False,
    all_owners: _AllOwners = False,
    owner: _Owner = None,
    adopt_owner: _AdoptOwner = None,
    launch: _Launches = None,
    yes: _Yes = False,
    stopped: _Stopped = False,
) -> None:
    """Stop instances of ours that no record names, or whose lease has expired."""
    settings = read_settings(config)
    if all_owners or owner is not None or adopt_owner is not None:
        if dry_run and not all_owners:
            raise StartupError("--dry-run: --all-owners lists, and deletes nothing")
        if all_owners + (owner is not None) + (adopt_owner is not None) + expired > 1:
            raise StartupError(
                "choose one of --all-owners, --owner, --adopt-owner and --expired"
            )
        named = [LaunchId(name) for name in launch or ()]
        asyncio.run(_sweep_owners(settings, owner, adopt_owner, named, yes=yes))
        return
    if launch or yes:
        raise StartupError("--launch, --yes: these go with --owner or --adopt-owner")
    if expired:
        from ollama_proxy.cli.offline import sweep_expired  # noqa: PLC0415 - slow to import

        _print_swept(asyncio.run(sweep_expired(settings, dry_run=dry_run)))
        return
    _print_swept(_sweep_own(settings, dry_run=dry_run, stopped=stopped))


def _sweep_own(settings: Settings, *, dry_run: bool, stopped: bool) -> dict[str, Any]:
    """Have our own deployment swept: by the running proxy, or else alone."""
    try:
        wishes = {"dry_run": str(int(dry_run)), "stopped": str(int(stopped))}
        return proxy_client(settings).post("/-/sweep", **wishes)
    except ProxyUnreachableError:
        from ollama_proxy.cli.offline import sweep_alone  # noqa: PLC0415 - slow to import

        return asyncio.run(sweep_alone(settings, dry_run=dry_run, stopped=stopped))


async def _sweep_owners(
    settings: Settings,
    owner: str | None,
    adopted: str | None,
    named: list[LaunchId],
    *,
    yes: bool,
) -> None:
    """List what every deployment has, or delete or adopt what one has."""
    from ollama_proxy.cli.owner_sweep import (  # noqa: PLC0415 - slow to import
        adopt,
        having,
        owner_sweep,
    )

    ask = partial(confirm, yes=yes)
    if adopted is not None:
        if not await adopt(settings, adopted, named, tell, ask):
            raise ProxyError(
                f"the owner {adopted} was not adopted: a proxy lives by it; stop that"
                " proxy, or name the launch with --launch"
            )
        return
    async with owner_sweep(settings) as sweeps:
        if owner is None:
            lines = [line for one in sweeps for line in await one.listed()]
            for line in dict.fromkeys(lines or ["nothing of this product is there"]):
                tell(line)
            return
        chosen = await having(sweeps, owner)
        done = [await one.delete(owner, named, tell, ask) for one in chosen]
        if not all(done):
            raise ProxyError(
                f"a proxy lives by what the owner {owner} has, so it was left alone;"
                " stop that proxy, or name the launch with --launch"
            )


def _print_swept(found: dict[str, Any]) -> None:
    verb = "would stop" if found["dry_run"] else "stopped"
    for launch_id in found["swept"]:
        out.print(f"{verb} {launch_id}")
    if not found["swept"]:
        out.print("nothing of ours runs that should not")
    for line in found.get("kept", ()):
        tell(f"kept: {line}")
    if failed := found.get("failed"):
        raise ProxyError("; ".join(failed))
