"""Beat: tell the hub every interval what this machine has and how busy it is."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.retry import GrowingPause
from ollama_proxy.node.beat import Facts
from ollama_proxy.node.hub_client import HubAwayError, HubClient, HubRefusedError

_FIRST_PAUSE_S = 2.0
_LONGEST_SLEEP_S = 5.0
_JITTER = 0.1


class Heartbeat:
    """Sends a beat every interval, varied by a tenth; one at once when asked to.

    A hub that is away gets the next one after 2 s, then 4 s, at most one interval: it
    knows this node again at most one interval after it is back.
    """

    def __init__(
        self,
        hub: HubClient,
        gather: Callable[[], Awaitable[Facts]],
        *,
        interval_s: float,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._hub, self._gather = hub, gather
        self._interval_s, self._clock, self._rng = interval_s, clock, rng
        self._away = GrowingPause(min(_FIRST_PAUSE_S, interval_s), interval_s, rng=rng)
        self._failed = 0
        self._trouble = ""
        self._ollama_fault = ""
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Beat now and every interval, until it is cancelled."""
        while True:
            await self.beat()
            await self._sleep(self.pause_s())

    async def run_later(self) -> None:
        """Do the same after a beat of the caller's."""
        await self._sleep(self.pause_s())
        await self.run()

    async def beat(self) -> None:
        """Send one beat; log what the hub makes of it, if that has changed."""
        facts = await self._gather()
        self._note_ollama(facts.ollama.fault)
        try:
            await self._hub.tell(facts)
        except HubAwayError as error:
            self._failed += 1
            self._note(log.HUB_AWAY, f"the hub is away ({error})")
        except HubRefusedError as error:
            self._failed = 0
            self._note(log.HUB_REFUSED, f"the hub does not take this node ({error})")
        else:
            self._failed = 0
            self._note(log.HUB_TOLD, "")

    def pause_s(self) -> float:
        """Return how long to wait for the next beat."""
        if self._failed:
            return min(self._away.after(self._failed), self._interval_s)
        return self._interval_s * self._rng.uniform(1 - _JITTER, 1 + _JITTER)

    async def _sleep(self, length_s: float) -> None:
        """Wait by a clock that no date changes, and that counts a machine's sleep."""
        due = self._clock.now() + length_s
        # The event loop's own clock stands still while a machine sleeps.
        while (left_s := due - self._clock.now()) > 0:  # noqa: ASYNC110 - time, no event
            await asyncio.sleep(min(left_s, _LONGEST_SLEEP_S))

    def _note(self, event: str, trouble: str) -> None:
        """Log a change: the first beat that fails in a way, the first that arrives."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            self._log.warning(event, reason=trouble)
        else:
            self._log.info(event, reason="the hub takes beats again")

    def _note_ollama(self, fault: str) -> None:
        if fault == self._ollama_fault:
            return
        self._ollama_fault = fault
        if fault:
            reason = f"{fault}; until it does, the hub learns of no models"
            self._log.warning(log.OLLAMA_AWAY, reason=reason)
        else:
            self._log.info(log.OLLAMA_BACK, reason="Ollama answers again")
