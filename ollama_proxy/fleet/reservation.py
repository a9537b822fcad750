"""Write a launch down before it begins; requests wait until that is done."""

import asyncio

from ollama_proxy.base.errors import StoreError


class Reservation:
    """Holds one launch between the first wish for it and its place on record.

    Wishes that come meanwhile join it, so that two of them do not make two launches.
    A stop withdraws it, a later wish renews it: the last order counts.
    """

    def __init__(self) -> None:
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_withdrawn = False

    async def settled(self) -> None:
        """Wait until the launch has begun, or was withdrawn.

        Raises `StoreError` if it could not be written down: it does not begin.
        """
        # shield: a client that leaves would cancel the future that all others wait for
        await asyncio.shield(self._done)

    def settle(self) -> None:
        """Let all go on that wait: the launch has begun, or was withdrawn."""
        self._done.set_result(None)

    def fail(self, error: StoreError) -> None:
        """Report to every waiting request why the launch does not begin."""
        self._done.set_exception(error)
        self._done.exception()  # else asyncio complains if all of them have left
