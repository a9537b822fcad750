"""Run the agent of a machine with Ollama: ``node``."""

import asyncio
import contextlib
import random
import sys
from typing import Annotated

import typer

from ollama_proxy.base import log
from ollama_proxy.base.clock import SystemClock
from ollama_proxy.cli.command_settings import environment
from ollama_proxy.cli.console import has_colours
from ollama_proxy.cli.event_loop import run_loop


def node(
    *,
    tunnel: Annotated[
        bool,
        typer.Option(
            "--tunnel",
            help="take requests through connections that this machine opens to the hub,"
            " which needs no way to NODE_PORT then",
        ),
    ] = False,
    no_tls: Annotated[
        bool,
        typer.Option(
            "--no-tls",
            help="join and serve without TLS: whoever reads that network reads prompts",
        ),
    ] = False,
) -> None:
    """Report this machine's Ollama to a hub, and work for that hub alone.

    The agent tells SERVER_URL (http://localhost:8000) every HEARTBEAT_INTERVAL (30) s
    which models the Ollama at OLLAMA_BASE_URL (http://127.0.0.1:11434) has and how busy
    the machine is. It takes POST /execute on NODE_PORT (8001), only from the addresses
    that SERVER_URL resolves to. Further variables: NODE_ID (the host name),
    NODE_REQUEST_TIMEOUT (120), OLLAMA_NUM_PARALLEL, OLLAMA_MODELS, NODE_LABELS,
    LOG_LEVEL, OLLAMA_PROXY_STATE_DIR.

    With OLLAMA_PROXY_NODE_TOKEN it joins the hub, once: the hub then uses all of Ollama
    over TLS, by a token that it alone has.
    """
    from ollama_proxy.node.settings import read_node_settings  # noqa: PLC0415 - slow
    from ollama_proxy.node.start import start_node  # noqa: PLC0415 - likewise
    from ollama_proxy.server.end_signals import (  # noqa: PLC0415 - likewise
        EndSignals,
        has_controlling_terminal,
    )

    asked = {"NODE_TUNNEL": "true"} if tunnel else {}
    if no_tls:
        asked["NODE_TLS"] = "false"
    settings = read_node_settings({**environment, **asked})
    environment.pop("OLLAMA_PROXY_NODE_TOKEN", None)  # programs that it starts inherit
    log.configure(settings.log_level, has_colours=has_colours())
    signals = EndSignals(has_terminal=has_controlling_terminal())

    async def run() -> None:
        signals.watch(asyncio.get_running_loop())
        await start_node(
            settings,
            clock=SystemClock(),
            rng=random.SystemRandom(),
            next_signal=signals.next,
            announce=_print,
        )

    run_loop(run())


def _print(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # stdout may be closed
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
