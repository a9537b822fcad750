"""Wake the one instance that a pool may have, of its one offer."""

from collections.abc import Callable, Mapping

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StoreError
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.lifecycle.deadlines import is_given_up
from ollama_proxy.core.lifecycle.events import Wake
from ollama_proxy.core.lifecycle.record import AT_REST, Record, State
from ollama_proxy.core.offer_choice import Obstacle
from ollama_proxy.core.pool_facts import PoolFacts
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.launch_ids import LaunchIdSource
from ollama_proxy.fleet.survey import Survey
from ollama_proxy.fleet.waiters import Waiters
from ollama_proxy.fleet.wakes import ANY_WAKE, AWAKE, LEAVING, was_just_woken


class LoneWakes:
    """Wakes the one instance that a pool may have, of its one offer."""

    def __init__(
        self,
        controller: Controller,
        *,
        survey: Survey,
        waiters: Waiters,
        accepts: Callable[[], bool],
        clock: Clock,
        draw_launch_id: LaunchIdSource,
        timing: Timing,
        tasks: TaskOwner,
    ) -> None:
        self._controller = controller
        self._survey = survey
        self._waiters = waiters
        self._accepts = accepts
        self._clock = clock
        self._draw_launch_id = draw_launch_id
        self._timing = timing
        self._tasks = tasks
        self._wakes_again = False
        self._wanted_model: str | None = None
        self._log = structlog.get_logger()

    @property
    def would_launch(self) -> bool:
        """Tell whether a wake would begin a launch, now or after the present stop.

        False if a launch is under way, will follow by itself, or if wakes are refused.
        """
        state = self._controller.record.state
        if state in AWAKE or self.is_coming or not self._accepts():
            return False
        if state in LEAVING:
            return not self.is_vain
        return self._controller.would_launch(ANY_WAKE)

    def must_reserve(self, _model: str | None) -> bool:
        """Tell whether a wake has to wait until a launch is written down."""
        if self._controller.record.state in AWAKE or not self._accepts():
            return False
        return self._controller.is_reserving or self._controller.would_launch(ANY_WAKE)

    @property
    def is_coming(self) -> bool:
        """Tell whether a launch is under way, or comes by itself after a stop."""
        starts = self._controller.record.state is State.STARTING
        starts = starts or self._controller.is_reserving
        return starts or self._wakes_again or self._waiters.any_to_wake()

    @property
    def is_vain(self) -> bool:
        """Tell whether no launch is under way or to come by itself."""
        return is_given_up(self._controller.record, self._controller.policy)

    @property
    def is_own_coming(self) -> bool:
        """Tell whether the instance is ready or asked for: there is no other."""
        return True

    async def wake(
        self, model: str | None, *, forced: bool = False, own: bool = False
    ) -> None:
        """Begin a launch, or join the one that is under way."""
        del own  # there is but one instance
        self._wanted_model = model
        if self._is_asked(forced=forced):
            await self._controller.wake(Wake(self._draw_launch_id(), model, forced))

    def join(self, model: str | None, *, own: bool = False) -> None:
        """Ask for an instance where no launch begins: one is under way, or to come."""
        del own
        self._wanted_model = model
        if (
            self._is_asked(forced=False)
            and self._controller.record.state not in AT_REST
        ):
            self._controller.apply(ANY_WAKE)

    def _is_asked(self, *, forced: bool) -> bool:
        """Tell whether a wake goes to the instance now."""
        if not self._accepts():
            return False
        if self._controller.record.state in LEAVING:
            self._wakes_again = True
        now, grain_s = self._clock.now(), self._timing.wake_grain_s
        return forced or not was_just_woken(self._controller, now, grain_s)

    def rest(self) -> None:
        """Launch nothing again after the stop."""
        self._wakes_again = False

    def restore(self) -> None:
        """Take up what an earlier process left."""
        self._controller.restore()

    def note(self, _controller: Controller, _before: Record, after: Record) -> None:
        """Launch again what was asked for during a stop, or end the waits."""
        match after.state:
            case State.STOPPING if self.is_vain:
                self._waiters.give_up()
            case State.STARTING:
                self._wakes_again = False  # this is that launch
            case State.COLD if self._waiters.any_to_wake() or self._wakes_again:
                self._tasks.spawn(self._wake_for_waiting(), name="wake again")
            case State.COLD:
                self._waiters.give_up()
            case State.COOLDOWN if self.is_vain or not self.is_coming:
                self._wakes_again = False  # else it launches unasked
                self._waiters.give_up()

    def look(self) -> None:
        """Do nothing: there is but one instance."""

    def note_nodes(self) -> None:
        """Do nothing: a pool with nodes has a `PoolOwner`."""

    def note_service(self) -> None:
        """Do nothing: its own record has taken note."""

    def obstacles(self) -> Mapping[str, Obstacle]:
        """Return nothing: the record of the one offer tells all."""
        return {}

    def facts(self) -> PoolFacts:
        """Return what a plan would look at."""
        return self._survey.facts(
            PoolPolicy(), self._waiters.facts(), accepts=self._accepts()
        )

    async def _wake_for_waiting(self) -> None:
        """Ask again, now that it is cold, for what was asked while it stopped."""
        if not self._waiters.any_to_wake() and not self._wakes_again:
            return
        self._wakes_again = False
        try:
            await self.wake(self._wanted_model, forced=False)
        except StoreError as error:
            self._log.error(log.STORE_FAILED, error=str(error))
            self._waiters.give_up()
