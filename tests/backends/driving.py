"""Drive a backend as the controller does, until something is seen."""

import asyncio

from ollama_proxy.base.errors import BackendError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Backend, Phase

_LIMIT_S = 5.0


async def started(backend: Backend, launch_id: LaunchId) -> None:
    """Start as the controller does: again, while that may help."""
    async with asyncio.timeout(_LIMIT_S):
        while True:
            try:
                await backend.start(launch_id)
            except BackendError:
                await asyncio.sleep(0.01)
            else:
                return


async def until(
    backend: Backend, launch_id: LaunchId, phase: Phase, *, stops: bool = False
) -> None:
    """Look until a launch is seen in a phase; ``stops``: stop it before each look."""
    async with asyncio.timeout(_LIMIT_S):
        while (await backend.inspect(launch_id)).phase is not phase:
            if stops:
                await backend.stop(launch_id)
            await asyncio.sleep(0.01)
