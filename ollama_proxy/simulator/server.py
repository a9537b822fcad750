"""Build the simulator's application: routes of every family, counters, faults."""

import asyncio
import time
from collections.abc import Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler

from ollama_proxy.core.ollama.routes import Kind, classify
from ollama_proxy.simulator.anthropic import Messages
from ollama_proxy.simulator.blobs import Blobs
from ollama_proxy.simulator.faults import requested
from ollama_proxy.simulator.inference import Inference
from ollama_proxy.simulator.library import Library
from ollama_proxy.simulator.model_making import ModelMaking
from ollama_proxy.simulator.native import Native
from ollama_proxy.simulator.openai import OpenAi
from ollama_proxy.simulator.refusals import plain, refused
from ollama_proxy.simulator.responses import Responses
from ollama_proxy.simulator.state import Counters, Manners, Simulator
from ollama_proxy.simulator.system import VERSION, System
from ollama_proxy.simulator.wire import reply

__all__ = [
    "SIMULATOR",
    "VERSION",
    "Counters",
    "Manners",
    "Simulator",
    "build_simulator",
    "plain",
]

SIMULATOR = web.AppKey("simulator", Simulator)


@web.middleware
async def _behave(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request, and answer faults and unknown paths as Ollama does."""
    simulator = request.app[SIMULATOR]
    counters = simulator.counters
    counters.requests[request.path] = counters.requests.get(request.path, 0) + 1
    works = classify(request.method, request.path).kind is Kind.INFERENCE
    counters.in_flight += 1
    counters.working += works
    counters.most_working = max(counters.most_working, counters.working)
    try:
        faults = requested(request, simulator.manners.faults)
        if faults.delay:
            await asyncio.sleep(faults.delay)
        if faults.status is not None:
            return reply({"error": "simulated failure"}, faults.status)
        return await handler(request)
    except web.HTTPException as error:
        return refused(request, error)
    except (asyncio.CancelledError, ConnectionError):
        counters.cancelled += 1
        raise
    finally:
        counters.in_flight -= 1
        counters.working -= works


async def _no_server_header(
    _request: web.BaseRequest, response: web.StreamResponse
) -> None:
    """Name no server: Ollama does not either."""
    response.headers.pop("Server", None)


def build_simulator(
    manners: Manners,
    *,
    models: Sequence[str] = (),
    now: Callable[[], float] = time.time,  # noqa: TID251 - its edge
) -> web.Application:
    """Return the stand-in, with ``models`` in its store from the start."""
    app = web.Application(middlewares=[_behave])
    simulator = Simulator(manners, now)
    for name in models:
        simulator.store.add(name)
    app[SIMULATOR] = simulator
    inference = Inference(simulator)
    for family in (
        *(System(simulator), Library(simulator), ModelMaking(simulator)),
        Blobs(simulator),
        *(Native(inference), OpenAi(inference), Responses(inference)),
        Messages(inference),
    ):
        app.add_routes(family.routes())
    app.on_response_prepare.append(_no_server_header)
    return app
