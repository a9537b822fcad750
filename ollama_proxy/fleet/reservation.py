"""Write a launch down before it begins; requests wait until that is done."""

import asyncio

from ollama_proxy.base.errors import StoreError


class Reservation:
    """Holds one launch between the first request for it and its entry in the record.

    Further requests join it, so that two of them do not make two launches. A stop
    withdraws it, a later request renews it: the latest order wins.
    """

    def __init__(self) -> None:
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_withdrawn = False

    async def settled(self) -> None:
        """Wait until the launch has begun or was withdrawn.

        Raises `StoreError` if it could not be written to disk; then it does not begin.
        """
        # shield: a client that leaves would cancel the future that all others wait for
        await asyncio.shield(self._done)

    def settle(self) -> None:
        """Let all go on that wait: the launch has begun, or was withdrawn."""
        self._done.set_result(None)

    def fail(self, error: StoreError) -> None:
        """Report to every waiting request why the launch does not begin."""
        self._done.set_exception(error)
        self._done.exception()  # retrieved, or asyncio may log it
