"""Stop an instance without a controller, until the cloud says that it is gone."""

import asyncio

from ollama_proxy.base.errors import (
    BackendError,
    CredentialsError,
    SpecError,
    TransientError,
)
from ollama_proxy.base.tasks import start_task
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Backend, Phase

_LIMIT_S = 900.0


async def until_gone(backend: Backend, launch_id: LaunchId) -> None:
    """Repeat the stop of a launch until it is gone, whatever fails in between.

    Raises `TransientError` if it still exists after 15 minutes, and at once an error
    that only a person can mend.
    """
    said = "no answer"
    try:
        async with asyncio.timeout(_LIMIT_S):
            # A loop of its own instead of `repeat`: only the cloud's clear answer ends
            # it, and the error at the limit quotes the cloud's last message.
            while True:
                try:
                    await backend.stop(launch_id)
                    seen = await backend.inspect(launch_id)
                except (CredentialsError, SpecError):
                    raise
                except BackendError as error:
                    said = str(error)
                else:
                    if seen.phase is Phase.GONE:
                        return
                    said = seen.detail
                await asyncio.sleep(backend.traits.poll_s)
    except TimeoutError:
        raise TransientError(
            f"the instance of launch {launch_id} is still there after {_LIMIT_S:.0f} s"
            f" ({said}) and may cost money; look into the cloud's portal"
        ) from None


async def surely_gone(backend: Backend, launch_id: LaunchId) -> None:
    """Stop a launch as `until_gone` does, and ignore cancellation until it is gone.

    The instance costs money while it exists. The cancellation is raised at the end.
    """
    stopping = start_task(until_gone(backend, launch_id), name="stop")
    cancelled: asyncio.CancelledError | None = None
    while not stopping.done():
        try:
            # shield: cancelling this task (a second Ctrl-C) must not cancel the stop
            await asyncio.shield(stopping)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
