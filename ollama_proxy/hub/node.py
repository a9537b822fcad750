"""Hold what the hub knows of one node, and tell it as the houses need it."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ollama_proxy.core.nodes.beat import Beat
from ollama_proxy.core.nodes.name_claim import NameClaim, machine_of
from ollama_proxy.core.nodes.node_state import (
    NodeState,
    StateFacts,
    StateLimits,
    node_state,
    takes_work,
)
from ollama_proxy.core.nodes.remembered import RememberedNode, lasting_body
from ollama_proxy.fleet.house import House
from ollama_proxy.fleet.node_facts import NodeFacts
from ollama_proxy.hub.ports import UNKNOWN_LINK, NodeLink, Sender

MOST_ERRORS: Final = 20
"""How many errors of a node are kept, the newest."""

_LONGEST_ERROR = 400


@dataclass(frozen=True, slots=True)
class NodeError:
    """Holds why a request failed on a node, and the moment."""

    at: float
    reason: str


@dataclass(slots=True)
class Node:
    """Holds one node. ``seq``: of its last beat; 0 if none arrived in this process.

    ``foreign``: how many requests of others its Ollama had at the last beat.
    ``is_drained``: by order. ``told``: what the houses know of it.
    ``changes_at``: until then its state changes only by what happens.
    """

    beat: Beat
    sender: Sender
    claim: NameClaim
    state: StateFacts
    link: NodeLink = UNKNOWN_LINK
    seq: int = 0
    foreign: int = 0
    is_drained: bool = False
    houses: Sequence[House] = ()
    told: NodeFacts | None = None
    changes_at: float = 0.0
    errors: deque[NodeError] = field(default_factory=lambda: deque(maxlen=MOST_ERRORS))

    @property
    def node_id(self) -> str:
        """Return its name."""
        return self.beat.node_id

    @property
    def boot_id(self) -> str:
        """Return what names the process of its agent; empty for a former one."""
        return self.beat.agent.boot_id if self.beat.agent else ""

    @property
    def labels(self) -> Mapping[str, str]:
        """Return the labels that it tells, and those that every node has."""
        own = {"node_id": self.node_id, "hostname": self.beat.host_name}
        return {**self.beat.labels, **own}

    @property
    def own_in_flight(self) -> int:
        """Return how many requests it works on that are ours."""
        return sum(house.own_in_flight(self.node_id) for house in self.houses)

    def is_old(self, beat: Beat) -> bool:
        """Tell whether a beat is one that arrived before, or an earlier one."""
        agent = beat.agent
        return (
            agent is not None
            and agent.boot_id == self.boot_id
            and agent.seq <= self.seq
        )

    def take(self, beat: Beat, sender: Sender, now: float) -> None:
        """Take in a beat; it says nothing on whether requests succeed."""
        self.beat, self.sender = beat, sender
        agent = beat.agent
        self.seq = agent.seq if agent else 0
        busy = agent.in_flight if agent else 0
        self.foreign = max(0, busy - self.own_in_flight)
        self.state = replace(self.state, beaten_at=now)
        self.note_drain()

    def spare(self, away_s: float, now: float) -> None:
        """Move its last beat on by a time in which the hub slept."""
        beaten_at = min(now, self.state.beaten_at + away_s)
        self.state = replace(self.state, beaten_at=beaten_at)

    def note_drain(self) -> None:
        """Compute whether it drains: by its own word, or by order."""
        agent = self.beat.agent
        is_draining = self.is_drained or (agent is not None and agent.is_draining)
        self.state = replace(self.state, is_draining=is_draining)

    def note_failure(self, reason: str, now: float) -> None:
        """Count a failure since the last success."""
        self.errors.append(NodeError(now, reason[:_LONGEST_ERROR]))
        failures = self.state.failures + 1
        self.state = replace(self.state, failures=failures, failed_at=now)

    def note_success(self) -> None:
        """Begin to count failures anew."""
        self.state = replace(self.state, failures=0)

    def state_at(self, now: float, limits: StateLimits) -> NodeState:
        """Return its state at a moment."""
        return node_state(self.state, now, limits)

    def is_told_at(self, now: float, limits: StateLimits) -> bool:
        """Tell whether its state at a moment is the one that the houses know."""
        return (
            self.told is not None
            and self.told.state is node_state(self.state, now, limits)
            and self.told.takes_work is takes_work(self.state, now, limits)
        )

    def facts(self, now: float, limits: StateLimits) -> NodeFacts:
        """Return what houses need to know of it."""
        beat, agent = self.beat, self.beat.agent
        return NodeFacts(
            node_id=beat.node_id,
            boot_id=self.boot_id,
            state=node_state(self.state, now, limits),
            takes_work=takes_work(self.state, now, limits),
            is_draining=self.state.is_draining,
            models=beat.models,
            loaded=beat.loaded,
            slots=agent.slots if agent else None,
            foreign=self.foreign,
            cpu=beat.cpu,
            has_gpu=bool(agent and agent.gpus),
            upstream=self.link.upstream,
            serves_all=self.link.serves_all,
            running=agent.loaded if agent else (),
        )

    def remembered(self) -> RememberedNode:
        """Return what lasts of it."""
        return RememberedNode(
            self.node_id,
            lasting_body(self.beat),
            self.sender.peer,
            self.sender.has_key,
            self.is_drained,
            self.claim.holder,
            self.claim.displaced,
        )


def machine_behind(beat: Beat, sender: Sender, known: Node | None) -> str:
    """Return which machine sent a beat: see `machine_of`.

    ``known``: the node of that name. Our agent tells the former keys alone for a while
    if a hub refuses the others; without its boot id it is still the machine it was.
    """
    boot_id = beat.agent.boot_id if beat.agent else ""
    if not boot_id and known is not None:
        before = (known.sender.peer, known.beat.port)
        if sender.has_key or (sender.peer, beat.port) == before:
            return known.claim.holder
    return machine_of(boot_id, sender.peer, beat.port, (beat.ipv4, beat.ipv6))
