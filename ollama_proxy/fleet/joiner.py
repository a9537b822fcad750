"""Connect to servers that somebody else manages, and again whenever one was lost."""

import asyncio
import contextlib
from collections.abc import Sequence

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StoreError
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.lifecycle.events import Wake
from ollama_proxy.core.lifecycle.record import AT_REST
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.launch_ids import LaunchIdSource


class Joiner:
    """Keeps slots connected whose server somebody else manages."""

    def __init__(
        self,
        controllers: Sequence[Controller],
        *,
        clock: Clock,
        draw_launch_id: LaunchIdSource,
        timing: Timing,
    ) -> None:
        self.joined = [one for one in controllers if one.offer.is_external]
        self._clock = clock
        self._begun_at = clock.now()
        self._draw_launch_id = draw_launch_id
        self._timing = timing

    async def run(self, controller: Controller) -> None:
        """Connect to a server at once, and again whenever it was lost."""
        # `repeat` would give up after a limit: this goes on as long as the proxy runs.
        while True:
            if controller.record.state in AT_REST:
                with contextlib.suppress(StoreError):
                    await controller.wake(Wake(self._draw_launch_id()))
            await asyncio.sleep(self._timing.join_pause_s)

    def grace_left_s(self) -> float:
        """Return for how many more seconds requests wait for a server to be joined.

        This way a proxy that has just started does not refuse its first request.
        """
        if not self.joined:
            return 0.0
        woken_at = max(c.record.woken_at for c in self.joined)
        begun_at = max(woken_at, self._begun_at)  # a record may be of a process before
        return begun_at + self._timing.join_grace_s - self._clock.now()
