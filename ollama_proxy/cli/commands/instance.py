"""Show the instance, start and stop it: ``status``, ``wake``, ``start``, ``stop``."""

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ollama_proxy.base.errors import ProxyError
from ollama_proxy.cli.admin_client import ProxyClient, ProxyUnreachableError
from ollama_proxy.cli.command_settings import (
    Config,
    environment,
    proxy_client,
    read_settings,
)
from ollama_proxy.cli.console import confirm, err, out, tell
from ollama_proxy.cli.status_view import (
    as_line,
    escape,
    render_status,
    watch_lines,
    watch_status,
)
from ollama_proxy.config.loader import recall_offer
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.record import LaunchId

PoolName = Annotated[
    str | None, typer.Option("--pool", metavar="NAME", help="of this pool alone")
]


def status(
    config: Config = None,
    *,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="stay: live, or a line per change into a pipe"),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="print what /status says, as JSON")
    ] = False,
) -> None:
    """Show what the running proxy is doing."""
    settings = read_settings(config)
    client = proxy_client(settings)
    is_live = sys.stdout.isatty() and not (out.is_dumb_terminal or as_json)
    if watch and is_live:
        watch_status(client, out)
    elif watch:
        watch_lines(client, sys.stdout, as_json=as_json)
    elif as_json:
        _print_json(client)
    else:
        _print_status(client, settings)


def _print_json(client: ProxyClient) -> None:
    """Print one object: the status, or ``{"error": …}`` and exit with 1."""
    try:
        sys.stdout.write(as_line(client.status()) + "\n")
    except ProxyError as error:
        sys.stdout.write(as_line({"error": str(error)}) + "\n")
        raise


def _print_status(client: ProxyClient, settings: Settings) -> None:
    """Print what the proxy does; without one, what there is, and exit with 1."""
    try:
        out.print(render_status(client.status(), client.url))
    except ProxyUnreachableError as error:
        from ollama_proxy.cli.offline import look_alone  # noqa: PLC0415 - slow to import

        err.print(f"ollama-proxy: {escape(str(error))}")
        for sentence in settings.sentences:
            tell(sentence)
        for line in asyncio.run(look_alone(settings)) or ["nothing of ours is there"]:
            tell(line)
        raise typer.Exit(1) from error


def wake(config: Config = None, *, pool: PoolName = None) -> None:
    """Launch an instance now, whatever failed before."""
    _order(proxy_client(read_settings(config)), "/-/wake", pool)


def start(config: Config = None, *, pool: PoolName = None) -> None:
    """Do the same as `wake`; without a proxy, start what ends by itself later."""
    settings = read_settings(config)
    try:
        _order(proxy_client(settings), "/-/wake", pool)
    except ProxyUnreachableError:
        from ollama_proxy.cli.start_alone import (  # noqa: PLC0415 - slow to import
            start_alone,
            started_words,
        )

        for sentence in settings.sentences:
            tell(sentence)
        started = asyncio.run(start_alone(settings, tell, pool))
        for line in started_words(started):
            tell(line)


def stop(
    config: Config = None,
    *,
    pool: PoolName = None,
    launch: Annotated[
        str | None,
        typer.Option(
            "--launch",
            metavar="ID",
            help="without a proxy, this one on record; its offer may be no more",
        ),
    ] = None,
) -> None:
    """Stop the instance once its streams have ended; without a proxy, at once."""
    settings = read_settings(config)
    if launch is not None:
        _end_launch(settings, config, launch)
        return
    try:
        _order(proxy_client(settings), "/-/stop", pool)
    except ProxyUnreachableError as error:
        if pool is not None:
            message = f"{error}; without one, `stop` takes no --pool: it ends all"
            raise ProxyError(message) from error
        from ollama_proxy.cli.offline import stop_alone  # noqa: PLC0415 - slow to import

        stopped = asyncio.run(stop_alone(settings))
        for launch_id in stopped:
            out.print(f"stopped {launch_id}")
        if not stopped:
            out.print("no proxy runs, and nothing of ours does")


def _end_launch(settings: Settings, config: Path | None, launch: str) -> None:
    from ollama_proxy.cli.launch_ending import end_launch  # noqa: PLC0415 - slow to import

    recall = partial(recall_offer, environment, config)
    offer = asyncio.run(end_launch(settings, LaunchId(launch), recall))
    tell(f"stopped {launch} of the offer {offer}")


def abandon(
    launch: Annotated[str, typer.Argument(help="id, as in `status --json`, the log")],
    config: Config = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Wait no longer for the cloud's word on a LAUNCH; it may still cost money."""
    client = proxy_client(read_settings(config))
    confirm(
        f"Free the slot of launch {launch!r}, though its instance may exist and cost"
        " money until a sweep finds it?",
        yes=yes,
    )
    told = client.post("/-/abandon", launch=launch)
    out.print(render_status(told, client.url))


def _order(client: ProxyClient, path: str, pool: str | None) -> None:
    """Give the running proxy an order, and print the result."""
    out.print(render_status(client.post(path, pool=pool), client.url))
