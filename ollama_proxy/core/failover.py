"""Decide what becomes of a request that a node of the house was asked. Pure.

A request that one node fails goes on to another one before the first byte of an answer
has left: to three different nodes at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

MOST_NODES: Final = 3
"""How many different nodes one request is sent to at most."""

UNSTREAMED: Final = 5.0
"""How many times longer an answer may take that is no stream: it has its first byte
when it is complete."""

_OWN_FAULT = 500
_OTHERS_MAY_DO = frozenset({_OWN_FAULT, 502, 503, 504})
_FAILURES = frozenset({502, 504})
_FIRST_REFUSAL = 400


@dataclass(frozen=True, slots=True)
class Attempt:
    """Says how a request fared on one node, before anything of it was relayed.

    - ``said``: what it answered, or what went wrong, in a few words.
    - ``status``: of its answer; None: there was none.
    - ``was_sent``: it may have begun to work, though there was no answer.
    """

    node_id: str
    said: str
    status: int | None = None
    was_sent: bool = False

    @property
    def is_failure(self) -> bool:
        """Tell whether it counts against the node: no answer, or one of a gateway.

        A 503 says that the node is busy, and a 4xx is about the request. A 500 counts
        only once another node shows that it can be done: see `proven_faults`.
        """
        return self.status is None or self.status in _FAILURES

    @property
    def is_final(self) -> bool:
        """Tell whether it has an answer that goes to the client: see `is_final`."""
        return self.status is not None and is_final(self.status)


def is_final(status: int) -> bool:
    """Tell whether an answer is the node's own word on the request, by its status."""
    return status not in _OTHERS_MAY_DO


class Then(Enum):
    """Says what follows an attempt.

    - ``RELAY``: the answer goes to the client.
    - ``NEXT``: another node is asked. Where there is none, it is as with ``END``.
    - ``END``: no further node is asked; see `answer_at_end`.
    """

    RELAY = "relay"
    NEXT = "next"
    END = "end"


def follow(
    attempts: Sequence[Attempt],
    *,
    before: int = 0,
    may_repeat: bool,
    can_repeat: bool,
) -> Then:
    """Return what follows the last of the attempts.

    - ``before``: nodes that were asked earlier, on another way in.
    - ``may_repeat``: the request may be sent again although a node may have begun to
      work on it: it only reads, or its client has asked for that.
    - ``can_repeat``: its body is in memory, so it can be sent a second time.

    | the last attempt                         | what follows                         |
    |------------------------------------------|--------------------------------------|
    | any status but 500, 502, 503, 504        | ``RELAY``                            |
    | it was on the third node                 | ``END``                              |
    | nothing was sent                         | ``NEXT``                             |
    | the body is gone                         | ``END``                              |
    | time-out or break after sending          | ``NEXT`` if it may be sent again     |
    | 502, 503, 504                            | ``NEXT``                             |
    | 500                                      | ``NEXT`` once: two nodes that agree  |
    |                                          | are believed                         |
    """
    last = attempts[-1]
    if last.is_final:
        return Then.RELAY
    if before + len(attempts) >= MOST_NODES:
        return Then.END
    if last.status is None and not last.was_sent:
        return Then.NEXT
    if not can_repeat:
        return Then.END
    if last.status is None:
        return Then.NEXT if may_repeat else Then.END
    faults = sum(one.status == _OWN_FAULT for one in attempts)
    return Then.END if last.status == _OWN_FAULT and faults > 1 else Then.NEXT


def answer_at_end(attempts: Sequence[Attempt]) -> int | None:
    """Return the index of the attempt whose answer the client gets at the end.

    None: our own words say what went wrong, since no node has answered, or one may
    work on the request unseen after all that answered.
    """
    for index in range(len(attempts) - 1, -1, -1):
        if attempts[index].status is not None:
            return index
        if attempts[index].was_sent:
            return None
    return None


def proven_faults(attempts: Sequence[Attempt], status: int) -> Sequence[int]:
    """Return the indices of the attempts that count as failures after all.

    ``status``: of the answer that another node has given now. What is done shows that
    the 500 of a node before was its own fault, and not the request's.
    """
    if status >= _FIRST_REFUSAL:
        return ()
    return [at for at, one in enumerate(attempts) if one.status == _OWN_FAULT]


def asks_for_retry(value: str) -> bool:
    """Tell whether a client has its request repeated, by the header's value."""
    return value.strip().lower() == "always"
