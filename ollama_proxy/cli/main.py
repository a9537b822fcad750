"""Parse the command line, call, print, and return an exit code.

0: done; 1: it did not work; 2: the settings, or what they name, are wrong.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn
from urllib.parse import quote

import structlog
import typer
from rich.console import Console

from ollama_proxy import __version__
from ollama_proxy.base import log
from ollama_proxy.base.errors import (
    BackendError,
    ConsentError,
    ProxyError,
    SettingsError,
    StartupError,
)
from ollama_proxy.base.library_log import traced
from ollama_proxy.base.parsers import replace_listen
from ollama_proxy.base.standard_streams import (
    UnwrittenError,
    discard_unwritten,
    name_faults_of_output,
    open_missing_streams,
)
from ollama_proxy.cli.admin_client import ProxyClient, ProxyUnreachableError, choose_url
from ollama_proxy.cli.calling import container_words, program_words
from ollama_proxy.cli.state_mount import passing_words
from ollama_proxy.cli.status_view import (
    as_line,
    escape,
    pull_line,
    render_status,
    watch_lines,
    watch_status,
)
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.service_links import service_links
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.server.serving_address import running_url

if TYPE_CHECKING:
    from ollama_proxy.cli.announcement import Calling, Serving

_USAGE = 2

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Ollama on :11434, on a machine that exists only while somebody uses it.",
)
_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

Config = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file; else ./ollama-proxy.toml if it is there"),
]


def _version(value: bool) -> None:  # noqa: FBT001 - typer calls it with the flag
    if value:
        _out.print(f"ollama-proxy {__version__}")
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


def _settings(config: Path | None, *, serves: bool = False) -> Settings:
    """Return the settings; what is logged from now on goes to standard error."""
    settings = load_settings(os.environ, config)
    log.configure(settings.log_level, has_colours=_has_colours(), of_command=not serves)
    return settings


def _client(settings: Settings) -> ProxyClient:
    """Return a client of the proxy that is meant: see `choose_url`."""
    folder, is_given = settings.state_dir, "listen" in settings.model_fields_set
    running = running_url(folder)
    url, why = choose_url(settings.listen.url, running, is_given=is_given)
    if why:
        told = f"{why}; the one of the state folder {str(folder)!r} is asked, at {url}"
        _err.print(f"ollama-proxy: {escape(told)}")
    return ProxyClient(url)


@app.command()
def serve(
    config: Config = None,
    *,
    host: Annotated[
        str | None,
        typer.Option("--host", help="listen here; wins over that of OLLAMA_HOST"),
    ] = None,
    port: Annotated[
        str | None, typer.Option("--port", help="listen on this port; 0: a free one")
    ] = None,
) -> None:
    """Serve until a signal ends it."""
    from ollama_proxy.cli.serve import serve as run  # noqa: PLC0415 - slow to import

    settings = _listening(_settings(config, serves=True), host, port)
    if links := service_links(os.environ, "OLLAMA_"):
        structlog.get_logger().debug("settings.service_links_ignored", variables=links)
    coro = run(settings, partial(_announce, config, _state_warnings(settings)))
    if sys.platform == "win32":
        asyncio.run(coro)
    else:
        import uvloop  # noqa: PLC0415 - not on every platform

        uvloop.run(coro)


def _listening(settings: Settings, host: str | None, port: str | None) -> Settings:
    """Return the settings with the address of the options."""
    faults, listen = [], settings.listen
    for name, options in (("--host", (host, None)), ("--port", (None, port))):
        try:
            listen = replace_listen(listen, *options)
        except ValueError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise SettingsError(faults)
    return settings.model_copy(update={"listen": listen})


def _has_colours() -> bool:
    """Tell whether standard error takes colours: see NO_COLOR and TERM=dumb."""
    return _err.color_system is not None and not _err.no_color


def _state_warnings(settings: Settings) -> tuple[str, ...]:
    """Return warnings about a state folder that is deleted with its container."""
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
        folder = settings.state_dir.resolve()
    except OSError:  # no Linux, or no /proc
        return ()
    warning = passing_words(os.environ, mountinfo, PurePosixPath(folder))
    return () if warning is None else (warning,)


def _announce(
    config: Path | None, warnings: tuple[str, ...], serving: "Serving"
) -> None:
    """Print what will be started, and what to type next."""
    from ollama_proxy.cli.announcement import announcement  # noqa: PLC0415 - slow to import

    for warning in warnings:
        structlog.get_logger().warning(log.STATE_PASSING, reason=warning)
    told = replace(serving, warnings=(*serving.warnings, *warnings))
    with contextlib.suppress(OSError, ValueError):  # a warning may get lost
        sys.stdout.write(announcement(told, _calling(config)))
        sys.stdout.flush()


def _calling(config: Path | None) -> "Calling":
    """Find out how a person calls the commands of this very program.

    The proxy is what a container is for if it is its first process, or a child of it;
    beside others, people are in there themselves.
    """
    from ollama_proxy.cli.announcement import Calling  # noqa: PLC0415 - slow to import

    program = program_words(sys.argv[0], sys.orig_argv, shutil.which("ollama-proxy"))
    container = ""
    if 1 in {os.getpid(), os.getppid()}:
        is_pod = "KUBERNETES_SERVICE_HOST" in os.environ
        container = container_words(Path("/"), socket.gethostname(), is_pod=is_pod)
    return Calling(program, container, str(config) if config else "")


@app.command()
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
    settings = _settings(config)
    client = _client(settings)
    is_live = sys.stdout.isatty() and not (_out.is_dumb_terminal or as_json)
    if watch and is_live:
        watch_status(client, _out)
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
    try:
        _out.print(render_status(client.status(), client.url))
    except ProxyUnreachableError as error:
        from ollama_proxy.cli.doctor import look_alone  # noqa: PLC0415 - slow to import

        _err.print(f"ollama-proxy: {escape(str(error))}")
        _out.print(escape(settings.selection.sentence))
        for line in asyncio.run(look_alone(settings)) or ["nothing of ours is there"]:
            _out.print(escape(line))
        raise typer.Exit(1) from error


@app.command()
def wake(config: Config = None) -> None:
    """Launch an instance now, whatever failed before."""
    client = _client(_settings(config))
    _out.print(render_status(client.post("/-/wake"), client.url))


@app.command()
def start(config: Config = None) -> None:
    """Do the same as `wake`; without a proxy, start what ends by itself later."""
    settings = _settings(config)
    client = _client(settings)
    try:
        _out.print(render_status(client.post("/-/wake"), client.url))
    except ProxyUnreachableError:
        from ollama_proxy.cli.start_alone import (  # noqa: PLC0415 - slow to import
            start_alone,
            started_words,
        )

        def tell(line: str) -> None:
            _out.print(escape(line))

        tell(settings.selection.sentence)
        started = asyncio.run(start_alone(settings, tell))
        for line in started_words(started):
            tell(line)


@app.command()
def stop(config: Config = None) -> None:
    """Stop the instance once its streams have ended; without a proxy, at once."""
    settings = _settings(config)
    client = _client(settings)
    try:
        _out.print(render_status(client.post("/-/stop"), client.url))
    except ProxyUnreachableError:
        from ollama_proxy.cli.doctor import stop_alone  # noqa: PLC0415 - slow to import

        stopped = asyncio.run(stop_alone(settings))
        for launch_id in stopped:
            _out.print(f"stopped {launch_id}")
        if not stopped:
            _out.print("no proxy runs, and nothing of ours does")


@app.command()
def pulls(
    config: Config = None,
    *,
    end: Annotated[
        str | None, typer.Option("--end", metavar="MODEL", help="end this one's pull")
    ] = None,
) -> None:
    """List the pulls that run without their client, or end one."""
    client = _client(_settings(config))
    if end is not None:
        for pull in client.delete(f"/-/pulls/{quote(end, safe='')}")["ended"]:
            _out.print(f"ended {escape(pull_line(pull))}")
        return
    under_way = client.status()["pulls"]
    for pull in under_way:
        _out.print(escape(pull_line(pull)))
    if not under_way:
        _out.print("no pull goes on")


@app.command()
def deploy(
    image: str,
    config: Config = None,
    *,
    replace: Annotated[
        list[str] | None,
        typer.Option("--replace", metavar="ID", help="delete this one of our name"),
    ] = None,
) -> None:
    """Make, once, what launches only start: the app that runs IMAGE."""
    settings = _settings(config)
    _out.print(escape(settings.selection.sentence))
    named = tuple(replace or ())
    try:
        _set_up(settings, image, named)
    except ConsentError as error:
        if not sys.stdin.isatty():
            raise
        _out.print(escape(str(error)))
        for name in error.names:
            if typer.prompt(f"Type {name} to have it deleted") != name:
                raise StartupError(
                    "that is not its id, so nothing was touched"
                ) from None
        _set_up(settings, image, (*named, *error.names))


@app.command()
def delete(
    config: Config = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Delete everything of this deployment in its cloud."""
    settings = _settings(config)
    if not yes:
        name = settings.selection.backend
        question = f"Delete everything of this deployment in its cloud, {name!r}?"
        typer.confirm(question, abort=True)
    _set_up(settings, None)


def _set_up(
    settings: Settings, image: str | None, replaced: tuple[str, ...] = ()
) -> None:
    """Deploy or delete: by the running proxy, or else alone.

    What waits for the proxy runs in no event loop: that would swallow the first Ctrl-C.
    """
    from ollama_proxy.cli.control_client import ask_running  # noqa: PLC0415 - slow to import
    from ollama_proxy.server.control_socket import ControlOrder  # noqa: PLC0415 - likewise

    kind: Literal["deploy", "delete"] = "delete" if image is None else "deploy"
    order = ControlOrder(kind, settings.selection.backend, image, replaced)
    told = ask_running(settings.state_dir, order)
    if told is None:
        asyncio.run(_set_up_alone(settings, image, replaced))
        return
    _out.print("the running proxy does it")
    for step in told:
        _out.print(escape(step))


async def _set_up_alone(
    settings: Settings, image: str | None, replaced: tuple[str, ...]
) -> None:
    from ollama_proxy.cli.doctor import set_up  # noqa: PLC0415 - slow to import

    async with contextlib.aclosing(set_up(settings, image, replaced)) as steps:
        async for step in steps:
            _out.print(escape(step))


@app.command()
def sweep(
    config: Config = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only list")] = False,
    expired: Annotated[
        bool, typer.Option("--expired", help="any deployment's, past their lease")
    ] = False,
    all_owners: Annotated[
        bool, typer.Option("--all-owners", help="only list every deployment's")
    ] = False,
    owner: Annotated[
        str | None,
        typer.Option("--owner", metavar="ID", help="delete what this owner id has"),
    ] = None,
    adopt_owner: Annotated[
        str | None,
        typer.Option("--adopt-owner", metavar="ID", help="go on as this owner id"),
    ] = None,
    launch: Annotated[
        list[str] | None,
        typer.Option("--launch", metavar="ID", help="although a proxy lives by it"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    stopped: Annotated[
        bool, typer.Option("--stopped", help="also those kept for the next launch")
    ] = False,
) -> None:
    """Stop instances of ours that no record names, or whose lease has expired."""
    settings = _settings(config)
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
        from ollama_proxy.cli.doctor import sweep_expired  # noqa: PLC0415 - slow to import

        _print_swept(asyncio.run(sweep_expired(settings, dry_run=dry_run)))
        return
    try:
        wishes = {"dry_run": str(int(dry_run)), "stopped": str(int(stopped))}
        found = _client(settings).post("/-/sweep", **wishes)
    except ProxyUnreachableError:
        from ollama_proxy.cli.doctor import sweep_alone  # noqa: PLC0415 - slow to import

        found = asyncio.run(sweep_alone(settings, dry_run=dry_run, stopped=stopped))
    _print_swept(found)


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
        owner_sweep,
    )

    def tell(line: str) -> None:
        _out.print(escape(line))

    ask = partial(_ask, yes=yes)
    if adopted is not None:
        if not await adopt(settings, adopted, named, tell, ask):
            raise ProxyError(
                f"the owner {adopted} was not adopted: a proxy lives by it; stop that"
                " proxy, or name the launch with --launch"
            )
        return
    async with owner_sweep(settings) as sweeping:
        if owner is None:
            for line in await sweeping.listed() or ["nothing of this product is there"]:
                tell(line)
        elif not await sweeping.delete(owner, named, tell, ask):
            raise ProxyError(
                f"a proxy lives by what the owner {owner} has, so it was left alone;"
                " stop that proxy, or name the launch with --launch"
            )


def _ask(question: str, *, yes: bool) -> None:
    """Ask a person before something is deleted; end if the answer is not yes.

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


def _print_swept(found: dict[str, Any]) -> None:
    verb = "would stop" if found["dry_run"] else "stopped"
    for launch_id in found["swept"]:
        _out.print(f"{verb} {launch_id}")
    if not found["swept"]:
        _out.print("nothing of ours runs that should not")
    for line in found.get("kept", ()):
        _out.print(f"kept: {escape(line)}")


@app.command()
def check(config: Config = None) -> None:
    """Examine settings, credentials and programs; create nothing."""
    from ollama_proxy.cli.doctor import examine  # noqa: PLC0415 - slow to import

    findings = asyncio.run(examine(_settings(config)))
    for finding in findings:
        mark = "[yellow]warn[/] " if finding.warns else "[green]ok[/]   "
        mark = mark if finding.ok else "[red]wrong[/]"
        _out.print(f"{mark} {escape(finding.subject)}: {escape(finding.detail)}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def healthcheck(config: Config = None) -> None:
    """Ask the proxy that listens on this machine whether it serves."""
    from ollama_proxy.cli.healthcheck import run  # noqa: PLC0415 - `main` does without us

    raise typer.Exit(run(os.environ, str(config) if config else None))


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
    """Say why the command ends, if anybody can hear it, and end it."""
    with contextlib.suppress(OSError):
        for sentence in sentences:
            _err.print(f"ollama-proxy: {escape(sentence)}")
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
