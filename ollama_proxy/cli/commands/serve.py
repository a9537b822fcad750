"""Run the proxy: ``serve``. Print first what it will start and what to type next."""

import contextlib
import os
import shutil
import socket
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from ollama_proxy.base import log
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.base.parsers import replace_listen
from ollama_proxy.cli.calling import container_words, program_words
from ollama_proxy.cli.command_settings import Config, environment, read_settings
from ollama_proxy.cli.event_loop import run_loop
from ollama_proxy.cli.state_mount import passing_words
from ollama_proxy.config.service_links import service_links
from ollama_proxy.config.settings import Settings

if TYPE_CHECKING:
    from ollama_proxy.cli.announcement import Calling, Serving


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

    settings = _listening(read_settings(config, serves=True), host, port)
    if links := service_links(environment, "OLLAMA_"):
        structlog.get_logger().debug("settings.service_links_ignored", variables=links)
    run_loop(run(settings, partial(_announce, config, _state_warnings(settings))))


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


def _state_warnings(settings: Settings) -> tuple[str, ...]:
    """Return warnings about a state folder that is deleted with its container."""
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
        folder = settings.state_dir.resolve()
    except OSError:  # no Linux, or no /proc
        return ()
    warning = passing_words(environment, mountinfo, PurePosixPath(folder))
    return () if warning is None else (warning,)


def _announce(
    config: Path | None, warnings: tuple[str, ...], serving: "Serving"
) -> None:
    """Print what will be started, and what to type next."""
    from ollama_proxy.cli.announcement import announcement  # noqa: PLC0415 - slow to import

    for warning in warnings:
        structlog.get_logger().warning(log.STATE_PASSING, reason=warning)
    told = replace(serving, warnings=(*serving.warnings, *warnings))
    with contextlib.suppress(OSError, ValueError):  # stdout may be closed
        sys.stdout.write(announcement(told, _calling(config)))
        sys.stdout.flush()


def _calling(config: Path | None) -> "Calling":
    """Find out how a person calls the commands of this very program.

    The container exists for the proxy if the proxy is its first process, or a child of
    that. Otherwise people work inside the container.
    """
    from ollama_proxy.cli.announcement import Calling  # noqa: PLC0415 - slow to import

    program = program_words(sys.argv[0], sys.orig_argv, shutil.which("ollama-proxy"))
    container = ""
    if 1 in {os.getpid(), os.getppid()}:
        is_pod = "KUBERNETES_SERVICE_HOST" in environment
        container = container_words(Path("/"), socket.gethostname(), is_pod=is_pod)
    return Calling(program, container, str(config) if config else "")
