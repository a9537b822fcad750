"""Run the simulator alone: ``python -m ollama_proxy.simulator --port 11500``."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping

from aiohttp import web

from ollama_proxy.base.listen_address import client_url
from ollama_proxy.base.parsers import parse_listen
from ollama_proxy.simulator.server import Manners, build_simulator


def _arguments(environment: Mapping[str, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ollama_proxy.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=11500)
    parser.add_argument("--rate", type=float, default=20.0, help="tokens a second")
    parser.add_argument("--load", type=float, default=2.0, help="seconds of a load")
    parser.add_argument("--pull", type=float, default=3.0, help="seconds of a pull")
    parser.add_argument(
        "--boot", type=float, default=0.0, help="seconds until it listens"
    )
    parser.add_argument("--models", default="", help="comma-separated, there at start")
    parser.add_argument(
        "--from-environment",
        action="store_true",
        help="listen on OLLAMA_HOST and take OLLAMA_SIMULATOR_* for the options",
    )
    arguments = parser.parse_args()
    if arguments.from_environment:
        _read(environment, arguments)
    return arguments


def _read(environment: Mapping[str, str], arguments: argparse.Namespace) -> None:
    listen = parse_listen(environment.get("OLLAMA_HOST", "127.0.0.1:11500"))
    arguments.host, arguments.port = listen.host, listen.port
    for name in ("rate", "load", "pull", "boot"):
        text = environment.get(f"OLLAMA_SIMULATOR_{name.upper()}")
        if text:
            setattr(arguments, name, float(text))
    arguments.models = environment.get("OLLAMA_SIMULATOR_MODELS", arguments.models)


async def _serve(arguments: argparse.Namespace) -> None:
    await asyncio.sleep(arguments.boot)
    manners = Manners(rate=arguments.rate, load_s=arguments.load, pull_s=arguments.pull)
    models = [name for name in arguments.models.split(",") if name.strip()]
    runner = web.AppRunner(
        build_simulator(manners, models=models),
        handler_cancellation=True,
        auto_decompress=False,
        access_log=None,
        shutdown_timeout=1.0,
        max_line_size=1024 * 1024,
        max_field_size=1024 * 1024,
    )
    await runner.setup()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        await web.TCPSite(runner, arguments.host, arguments.port).start()
        url = client_url(arguments.host, runner.addresses[0][1])
        sys.stdout.write(f"the simulator listens at {url}\n")
        sys.stdout.flush()
        await ended.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(_arguments(os.environ)))
