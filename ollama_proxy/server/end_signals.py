"""Handle the signals that end the proxy, and those that do not."""

import asyncio
import os
import signal

import structlog

from ollama_proxy.base import log

_MOST = 16
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class EndSignals:
    """Hands out the signals that end the proxy, one after the other.

    The first one ends it in good order, a further one cuts requests in progress.
    ``has_terminal``: the process began with a controlling terminal, so SIGHUP means
    that this terminal was closed.
    """

    def __init__(self, *, has_terminal: bool) -> None:
        self._has_terminal = has_terminal
        self._queue: asyncio.Queue[signal.Signals] = asyncio.Queue(maxsize=_MOST)
        self._has_begun = False

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handle the signals in the event loop from now on.

        A signal that was ignored when the process began stays ignored, as with
        ``nohup`` and in the background of a shell script. SIGTERM always ends the
        proxy.
        """
        for number in _ENDING:
            is_ignored = signal.getsignal(number) is signal.SIG_IGN
            if number is signal.SIGTERM or not is_ignored:
                loop.add_signal_handler(number, self.note, number)

    def note(self, number: signal.Signals) -> None:
        """Handle one signal.

        A closing terminal sends SIGHUP twice, by the shell and by the kernel, so SIGHUP
        never counts as the second signal.
        """
        if number is signal.SIGHUP and not self._has_terminal:
            reason = "there is no terminal that could be gone; SIGTERM ends the proxy"
            structlog.get_logger().warning(
                log.SIGNAL_IGNORED, signal=number.name, reason=reason
            )
            return
        if number is signal.SIGHUP and self._has_begun:
            return
        self._has_begun = True
        if not self._queue.full():
            self._queue.put_nowait(number)

    async def next(self) -> signal.Signals:
        """Wait for a signal that ends the proxy, or ends it faster."""
        return await self._queue.get()


def has_controlling_terminal() -> bool:
    """Tell whether the process has a controlling terminal.

    Call it at the start: a terminal that hangs up is no longer the controlling one when
    its SIGHUP arrives (``tty_signal_session_leader`` in Linux).
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
