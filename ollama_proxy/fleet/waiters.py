"""Hold requests that wait for an instance: bounded in number, released gradually."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from enum import Enum

from ollama_proxy.base.errors import HoldLimitError
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import Timing

_FIRST_BATCH = 8


class Wants(Enum):
    """Says whether a waiting request may wake an instance, or only join a launch."""

    TO_WAKE = "wake"
    TO_JOIN = "join"


class Waiters:
    """Holds the requests that wait now. A request is dropped when its client leaves.

    ``most``: how many may wait at once. ``is_ready``: tells whether an instance is
    available, checked before each batch.
    """

    def __init__(
        self,
        most: int,
        *,
        is_ready: Callable[[], bool],
        tasks: TaskOwner,
        timing: Timing,
    ) -> None:
        self._most = most
        self._is_ready = is_ready
        self._tasks = tasks
        self._pause_s = timing.batch_pause_s
        self._waiting: dict[asyncio.Future[bool], Wants] = {}
        self._is_releasing = False

    def __len__(self) -> int:
        return len(self._waiting)

    def any_to_wake(self) -> bool:
        """Tell whether a request waits that may have an instance woken."""
        return Wants.TO_WAKE in self._waiting.values()

    async def wait_until(self, deadline: float, wants: Wants) -> bool:
        """Wait for a signal that there may be a lease; False if there will be none.

        ``deadline``: event-loop time, False once it passes. Raises `HoldLimitError` if
        too many wait already.
        """
        with self._waiting_as(wants) as sign:
            try:
                async with asyncio.timeout_at(deadline):
                    return await sign
            except TimeoutError:
                return False

    @contextlib.contextmanager
    def _waiting_as(self, wants: Wants) -> Iterator[asyncio.Future[bool]]:
        if len(self._waiting) >= self._most:
            raise HoldLimitError(f"{self._most} requests wait already; try again later")
        sign: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[sign] = wants
        try:
            yield sign
        finally:
            del self._waiting[sign]

    def release(self) -> None:
        """Begin to let the waiting requests go, in growing batches."""
        if self._waiting and not self._is_releasing:
            self._is_releasing = True
            self._tasks.spawn(self._release_in_batches(), name="release")

    async def _release_in_batches(self) -> None:
        """Release 8 requests, then 16 and so on: all at once would be a stampede."""
        batch = _FIRST_BATCH
        try:
            while self._waiting and self._is_ready():
                asleep = [sign for sign in self._waiting if not sign.done()]
                for sign in asleep[:batch]:
                    sign.set_result(True)
                # Doubling batches: 10 000 requests are released in 11 steps of about 10
                # ms.
                batch *= 2
                await asyncio.sleep(self._pause_s)
        finally:
            self._is_releasing = False

    def give_up(self) -> None:
        """Tell all that wait that there will be no instance."""
        for sign in self._waiting:
            if not sign.done():
                sign.set_result(False)
