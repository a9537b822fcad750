"""An event loop whose clock jumps to the next deadline instead of sleeping.

An hour of idle time-out runs in a millisecond. For fakes only: with sockets, time must
not jump while bytes are in transit.
"""

import asyncio
import inspect
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from ollama_proxy.base.clock import SystemClock

_TURNS_A_LOOK = 16


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self._turn = 0

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        # All that is ever ready here is the word of a thread. While callbacks wait it
        # is looked for now and then: a call of the system took a sixth of all time.
        self._turn += 1
        if timeout is not None and timeout <= 0 and self._turn % _TURNS_A_LOOK:
            return []
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise AssertionError("every task waits for something that never comes")
            self.now += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with its own time, in seconds since a made-up epoch."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@dataclass(slots=True)
class LoopClock:
    """A Clock that tells the time of the running loop; its date can be set."""

    date_ahead_s: float = 0.0

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return self.now() + self.date_ahead_s


@dataclass(slots=True)
class SetClock:
    """A clock that is moved by hand, while sockets run in real time.

    ``date_ahead_s``: difference between the date and the moment.
    """

    moment: float = 1_000_000.0
    date_ahead_s: float = 0.0

    def now(self) -> float:
        return self.moment

    def wall(self) -> float:
        return self.moment + self.date_ahead_s


_REAL = SystemClock()  # to make one reads a file


@dataclass(slots=True)
class JumpingClock:
    """The real time, moved on by hand; ``date_ahead_s`` moves the date alone."""

    ahead_s: float = 0.0
    date_ahead_s: float = 0.0

    async def sleep(self, length_s: float) -> None:
        """Let so much time pass at once."""
        self.ahead_s += length_s
        await asyncio.sleep(0)

    def now(self) -> float:
        return _REAL.now() + self.ahead_s

    def wall(self) -> float:
        return _REAL.wall() + self.ahead_s + self.date_ahead_s


_TURNS = 10


async def pass_time(
    clock: JumpingClock,
    step_s: float,
    *,
    every_s: float,
    waits_for_commands: bool = False,
) -> None:
    """Advance a clock by a step at intervals, for ever.

    Other tasks get some iterations of the loop before each step: on a busy machine an
    iteration takes as long as the pause, and minutes would pass during one answer. The
    clock stands still while a thread is at work, such as a call of an SDK that blocks:
    the loop is idle then, for as long as the machine takes. So it does during commands
    where ``waits_for_commands``: not where one waits for the clock itself.
    """
    loop = asyncio.get_running_loop()
    in_threads, commands = set[Any](), set[asyncio.SubprocessTransport]()
    run, execute = loop.run_in_executor, loop.subprocess_exec

    def run_noted(*args: Any) -> Any:
        job = run(*args)
        in_threads.add(job)
        job.add_done_callback(in_threads.discard)
        return job

    async def execute_noted(*args: Any, **kwargs: Any) -> Any:
        transport, protocol = await execute(*args, **kwargs)
        if waits_for_commands:
            commands.add(transport)
        return transport, protocol

    with (
        patch.object(loop, "run_in_executor", run_noted),
        patch.object(loop, "subprocess_exec", execute_noted),
    ):
        while True:
            await asyncio.sleep(every_s)
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            commands = {one for one in commands if one.get_returncode() is None}
            if not (in_threads or commands):
                clock.ahead_s += step_s


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Any:
    """Run an async test on a virtual loop."""

    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]  # pytest reads fixtures off it
    return run
