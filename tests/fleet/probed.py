"""Servers on real sockets for a probe to look at."""

import contextlib
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from ollama_proxy.core.lifecycle.record import Progress
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.readiness import HttpProbe
from ollama_proxy.simulator.server import SIMULATOR, Manners, Simulator, build_simulator


@contextlib.asynccontextmanager
async def probed(
    manners: Manners, *models: str
) -> AsyncIterator[tuple[HttpProbe, Upstream, Simulator]]:
    app = build_simulator(manners, models=models)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as session:
        yield HttpProbe(session), Upstream(url), app[SIMULATOR]
    await runner.cleanup()


@contextlib.asynccontextmanager
async def picky_server(model: str, status: int, error: str) -> AsyncIterator[list[str]]:
    """Serve one model whose generate fails; yield the URL, then what was asked."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        bodies = {
            "/api/version": {"version": "1.0.0"},
            "/api/tags": {"models": [{"name": model}]},
            "/api/embed": {"model": model, "embeddings": []},
        }
        if request.path in bodies:
            return web.json_response(bodies[request.path])
        return web.json_response({"error": error}, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    asked.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield asked
    await runner.cleanup()


async def steps(
    probe: HttpProbe, upstream: Upstream, wanted: list[str], model: str | None = None
) -> list[Progress]:
    return [step async for step in probe.prepare(upstream, wanted, model)]
