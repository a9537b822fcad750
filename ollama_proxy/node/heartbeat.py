"""Beat: tell the hub every interval what this machine has and how busy it is."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.retry import GrowingPause
from ollama_proxy.node.beat import Facts
from ollama_proxy.node.hub_answer import HubAnswer
from ollama_proxy.node.hub_client import HubAwayError, HubClient, HubRefusedError

_FIRST_PAUSE_S = 2.0
_LONGEST_SLEEP_S = 5.0
_JITTER = 0.1
_LEAST_S = 1.0
_DRAINED_S = 5.0


class Heartbeat:
    """Sends a beat every interval, varied by a tenth; one at once when asked to.

    A hub that is away gets the next one after 2 s, then 4 s, at most one interval: it
    knows this node again at most one interval after it is back. The hub may set the
    time to the next beat. While it drains this node, that is at most 5 s: it soon
    learns that the node works again.

    ``on_answer`` gets each answer of the hub, and tells whether a beat goes at once.
    """

    def __init__(
        self,
        hub: HubClient,
        gather: Callable[[], Awaitable[Facts]],
        *,
        interval_s: float,
        clock: Clock,
        rng: random.Random,
        on_answer: Callable[[HubAnswer], bool] = lambda _: False,
    ) -> None:
        self._hub, self._gather, self._on_answer = hub, gather, on_answer
        self._interval_s, self._clock, self._rng = interval_s, clock, rng
        self._away = GrowingPause(min(_FIRST_PAUSE_S, interval_s), interval_s, rng=rng)
        self._failed = 0
        self._trouble = ""
        self._answer = HubAnswer()
        self._is_urgent = False
        self._hurried = asyncio.Event()
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
        self._is_urgent = False
        try:
            answer = await self._hub.tell(facts)
        except HubAwayError as error:
            self._failed += 1
            self._note(log.HUB_AWAY, f"the hub is away ({error})")
        except HubRefusedError as error:
            self._failed = 0
            self._note(log.HUB_REFUSED, f"the hub does not take this node ({error})")
        else:
            self._failed = 0
            self._note(log.HUB_TOLD, "")
            self._heed(answer)

    def pause_s(self) -> float:
        """Return how long to wait for the next beat."""
        if self._failed:
            return min(self._away.after(self._failed), self._interval_s)
        if self._is_urgent:
            return _LEAST_S
        told_s = self._answer.next_beat_s
        length_s = self._interval_s if told_s is None else told_s
        if self._answer.is_drained:
            length_s = min(length_s, _DRAINED_S)
        return length_s * self._rng.uniform(1 - _JITTER, 1 + _JITTER)

    def _heed(self, answer: HubAnswer) -> None:
        """Keep what the hub answers; log its message if that has changed."""
        before, self._answer = self._answer, answer
        if answer.message and answer.message != before.message:
            self._log.warning(log.HUB_MESSAGE, reason=answer.message)
        self._is_urgent = self._on_answer(answer)

    async def _sleep(self, length_s: float) -> None:
        """Wait by a clock that no date changes, and that counts a machine's sleep.

        `hurry` ends it, after a second at the earliest.
        """
        begun_at = self._clock.now()
        due = begun_at + length_s
        # The event loop's own clock stands still while a machine sleeps.
        while (left_s := due - self._clock.now()) > 0:
            if self._hurried.is_set():
                self._hurried.clear()
                due = min(due, begun_at + _LEAST_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _LONGEST_SLEEP_S)):
                    await self._hurried.wait()

    def hurry(self) -> None:
        """Have the next beat go at once."""
        self._hurried.set()

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
