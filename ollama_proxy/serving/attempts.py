"""Ask one node of the house after another, until one answers the request.

The rules are those of `ollama_proxy.core.failover`. What fails may be asked again until
the first byte of an answer has left for the client.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog
from multidict import CIMultiDictProxy

from ollama_proxy.base import log
from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.core.failover import (
    Attempt,
    Then,
    answer_at_end,
    follow,
    is_final,
    proven_faults,
)
from ollama_proxy.core.nodes.agent_error import detail_of, said_in
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.serving.request_context import TriedOn
from ollama_proxy.upstream.client import Answer

HELD_BYTES: Final = 64 * 1024
"""The longest answer that is held back while another node is asked."""

FAILURE_S: Final = 5.0
"""How long a node may take to end an answer that says that it fails."""

_FIRST_REFUSAL = 400
_NOT_ADMITTED = frozenset({401, 403})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HeldAnswer:
    """Holds the whole answer of a node, while another one may give a better one."""

    status: int
    reason: str | None
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def said(self) -> str:
        """Return what it says, in a few words."""
        told = said_in(self.body)
        return f"answered {self.status}" + (f": {told}" if told else "")


async def hold(answer: Answer) -> HeldAnswer | AsyncIterator[bytes] | None:
    """Wait for the first byte of a body, and hold back what another node may better.

    Returns None for an answer that goes to the client, and the body from its beginning
    if some of it was read for that, or if it is too long to be held. Raises
    `UpstreamError` if it breaks off, or if the agent refuses the hub.
    """
    status = answer.status
    if not is_final(status):
        return await _hold_failure(answer)
    try:
        # A former agent sends the head before its Ollama has begun to work.
        await answer.begun()
    except InstanceLostError as error:
        raise _broken_off(answer, error, arrived=status < _FIRST_REFUSAL) from error
    if status not in _NOT_ADMITTED:
        return None
    body, rest = await _read(answer)
    check_admitted(status, body)
    return joined(body, rest)


async def _hold_failure(answer: Answer) -> HeldAnswer | AsyncIterator[bytes]:
    """Hold back an answer that says that the node does not work on the request."""
    try:
        async with asyncio.timeout(FAILURE_S):
            body, rest = await _read(answer)
    except TimeoutError as error:
        raise _broken_off(answer, "it stalls", arrived=False) from error
    if rest is not None:
        return joined(body, rest)
    return HeldAnswer(answer.status, answer.reason, answer.headers, body)


async def _read(answer: Answer) -> tuple[bytes, AsyncIterator[bytes] | None]:
    """Read a body; what is beyond 64 KiB is still to be read."""
    chunks, body = answer.chunks(), b""
    try:
        async for data in chunks:
            body += data
            if len(body) > HELD_BYTES:
                return body, chunks
    except InstanceLostError as error:
        raise _broken_off(answer, error, arrived=False) from error
    return body, None


def _broken_off(answer: Answer, why: object, *, arrived: bool) -> UpstreamError:
    message = f"it answered {answer.status}, and broke off: {why}"
    return UpstreamError(message, arrived=arrived)


async def joined(
    begun: bytes, rest: AsyncIterator[bytes] | None
) -> AsyncIterator[bytes]:
    """Yield what was read of a body, then the rest of it."""
    if begun:
        yield begun
    if rest is not None:
        async for data in rest:
            yield data


def check_admitted(status: int, body: bytes) -> None:
    """Raise `UpstreamError` for the answer of an agent that takes us for no hub of its.

    What Ollama itself refuses is an answer.
    """
    refusal = detail_of(body) if status in _NOT_ADMITTED else None
    if refusal is not None:
        raise UpstreamError(f"it refuses the hub: {refusal}", arrived=False)


class Attempts:
    """Follows one request from node to node.

    - ``tried``: the nodes that it was sent to, on another way in too.
    - ``lease_next``: leases a node that was not tried, or an instance, once it has a
      free slot; None: there is none.
    - ``may_repeat``, ``can_repeat``: as `follow` has them.
    """

    def __init__(
        self,
        tried: TriedOn,
        lease_next: Callable[[TriedOn], Awaitable[Lease | None]],
        *,
        may_repeat: bool,
        can_repeat: Callable[[], bool],
        request_id: str = "",
    ) -> None:
        self.made: list[Attempt] = []
        self._before = len(tried)
        self.tried = tried
        self._lease_next = lease_next
        self._may_repeat = may_repeat
        self._can_repeat = can_repeat
        self._request_id = request_id
        self._leases: list[Lease] = []
        self._held: HeldAnswer | None = None

    async def run(
        self, lease: Lease, ask: Callable[[Lease], Awaitable[T | HeldAnswer]]
    ) -> T | HeldAnswer:
        """Ask nodes until one answers, beginning with that of a lease.

        ``ask`` serves the request under a lease: it returns the answer that could be
        better, or what it made of one that begins, of which it tells `note_answer`. It
        raises `UpstreamError` without one. Each lease is given back here.

        Returns the last answer if all have answered that they can't do it. Raises
        `UpstreamError`, in our words, if none has answered.
        """
        current: Lease | None = lease
        while current is not None:
            with current:
                try:
                    told = await ask(current)
                except UpstreamError as error:
                    attempt = Attempt(_name(current), str(error), None, error.arrived)
                else:
                    if not isinstance(told, HeldAnswer):
                        return told
                    attempt = Attempt(_name(current), told.said, told.status)
                    self._held = told
            self._note(current, attempt)
            # What was aborted is closed in the next turn of the event loop: no node
            # gets the request while the one before has a connection for it.
            await asyncio.sleep(0)
            current = await self._next(current)
        return self._at_end()

    def note_answer(self, lease: Lease, status: int, *, is_read: bool = False) -> None:
        """Take in that an answer begins that the client gets.

        A read shows that Ollama is there, not that models run: it heals no node.
        """
        if lease.node_id is not None:
            attempt = Attempt(lease.node_id, f"answered {status}", status)
            if attempt.is_failure:
                lease.failed(attempt.said)
            elif attempt.is_final and not is_read:
                lease.answered()
        for index in proven_faults(self.made, status):
            self._leases[index].failed(f"{self.made[index].said}; another node did it")

    def _note(self, lease: Lease, attempt: Attempt) -> None:
        """Take in an attempt that failed."""
        self.made.append(attempt)
        self._leases.append(lease)
        lease.check_now()
        if lease.node_id is not None:
            self.tried += (lease.launch_id,)
            if attempt.is_failure and not lease.was_cut:
                lease.failed(attempt.said)

    async def _next(self, lease: Lease) -> Lease | None:
        """Lease the next node after the last attempt, if one may be asked."""
        if lease.node_id is None:
            return None
        then = follow(
            self.made,
            before=self._before,
            may_repeat=self._may_repeat,
            can_repeat=self._can_repeat(),
        )
        following = None
        if then is Then.NEXT:
            following = await self._lease_next(self.tried)
        structlog.get_logger().warning(
            log.NODE_FAILED,
            request_id=self._request_id,
            node=lease.node_id,
            error=self.made[-1].said,
            next_node="" if following is None else _name(following),
        )
        return following

    def _at_end(self) -> HeldAnswer:
        """Return the answer that the client gets; raises `UpstreamError` for none."""
        if answer_at_end(self.made) is not None and self._held is not None:
            return self._held
        arrived = any(one.was_sent and one.status is None for one in self.made)
        told = "; ".join(f"{one.node_id}: {one.said}" for one in self.made)
        raise UpstreamError(told, arrived=arrived)


def _name(lease: Lease) -> str:
    """Return how a node is named, or an instance that is none."""
    return lease.node_id or str(lease.launch_id)
