"""Deploy once what launches start, and delete it: ``deploy``, ``delete``.

If a proxy runs it carries the order out, since it holds the state folder.
"""

import asyncio
import contextlib
import sys
from typing import Annotated, Literal

import typer

from ollama_proxy.base.errors import ConsentError, StartupError
from ollama_proxy.cli.command_settings import Config, read_settings
from ollama_proxy.cli.console import confirm, out, tell
from ollama_proxy.cli.opened_offers import chosen_offer
from ollama_proxy.config.settings import Settings

OfferName = Annotated[
    str | None, typer.Option("--offer", metavar="NAME", help="of this offer alone")
]


def deploy(
    image: Annotated[str, typer.Argument(help="a reference, as registry/name:tag")],
    config: Config = None,
    *,
    offer: OfferName = None,
    replace: Annotated[
        list[str] | None,
        typer.Option("--replace", metavar="ID", help="delete this one of our name"),
    ] = None,
) -> None:
    """Make, once, what launches only start: the app that runs IMAGE."""
    settings = read_settings(config)
    for line in settings.sentences:
        tell(line)
    named = tuple(replace or ())
    try:
        _set_up(settings, image, named, offer=offer)
    except ConsentError as error:
        if not sys.stdin.isatty():
            raise
        tell(str(error))
        for name in error.names:
            if typer.prompt(f"Type {name} to have it deleted") != name:
                raise StartupError(
                    "that is not its id, so nothing was touched"
                ) from None
        _set_up(settings, image, (*named, *error.names), offer=offer)


def delete(
    config: Config = None,
    *,
    offer: OfferName = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Delete everything of this deployment in its cloud."""
    settings = read_settings(config)
    chosen = settings.offers if offer is None else [chosen_offer(settings, offer)]
    if len(chosen) == 1:
        where = f"its cloud, {chosen[0].name!r}"
    else:
        where = "its clouds, " + ", ".join(repr(one.name) for one in chosen)
    confirm(f"Delete everything of this deployment in {where}?", yes=yes)
    _set_up(settings, None, offer=offer)


def _set_up(
    settings: Settings,
    image: str | None,
    replaced: tuple[str, ...] = (),
    *,
    offer: str | None = None,
) -> None:
    """Deploy or delete: by the running proxy, or without one.

    Waiting for the proxy does not use an event loop, which would swallow the first
    Ctrl-C.
    """
    from ollama_proxy.cli.control_client import ask_running  # noqa: PLC0415 - slow to import
    from ollama_proxy.server.control_socket import ControlOrder  # noqa: PLC0415 - likewise

    kind: Literal["deploy", "delete"] = "delete" if image is None else "deploy"
    name = offer or settings.pools[0].first_own.name
    told = ask_running(settings.state_dir, ControlOrder(kind, name, image, replaced))
    if told is None:
        asyncio.run(_set_up_alone(settings, image, replaced, offer))
        return
    out.print("the running proxy does it")
    for step in told:
        tell(step)
    others = [one.name for one in settings.offers if one.name != name]
    if image is None and offer is None and others:
        tell(
            f"the running proxy deleted what {name!r} has; stop it to delete what"
            f" others have: {', '.join(others)}"
        )


async def _set_up_alone(
    settings: Settings,
    image: str | None,
    replaced: tuple[str, ...],
    offer: str | None,
) -> None:
    """Deploy or delete while no proxy runs, and print each step."""
    from ollama_proxy.cli.offline import set_up  # noqa: PLC0415 - slow to import

    async with contextlib.aclosing(set_up(settings, image, replaced, offer)) as steps:
        async for step in steps:
            tell(step)
