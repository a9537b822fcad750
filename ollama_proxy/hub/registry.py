"""Know the nodes: take in their beats, and tell the houses what is known of them.

Everything happens in one event loop, and nothing here waits. Ages are by our clock; a
node's own is not even read.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.core.nodes.beat import Beat, BeatError
from ollama_proxy.core.nodes.name_claim import NameClaim
from ollama_proxy.core.nodes.node_state import (
    NodeState,
    StateFacts,
    is_removed,
    next_change,
)
from ollama_proxy.core.nodes.remembered import RememberedNode, is_same_node
from ollama_proxy.fleet.house import House
from ollama_proxy.hub.beat_rules import (
    RegistryLimits,
    check_claim,
    check_room,
    check_sender,
)
from ollama_proxy.hub.node import Node, machine_behind
from ollama_proxy.hub.node_memory import NodeMemory
from ollama_proxy.hub.node_view import shown_errors, shown_node
from ollama_proxy.hub.ports import NodeLinks, Sender, WantedModels
from ollama_proxy.store.ports import NodeStore

_TICK_S: Final = 1.0
_ASLEEP_S: Final = 5.0
"""From how much more time than a tick on, this machine, or the process, slept."""


class NodeRegistry:
    """Holds every node, and is the one that sets their state: see `NodeReports`.

    ``houses``: of every pool. ``links``: finds how nodes are reached. ``wanted``: which
    models a node should pull, if any. ``is_keyed``: tells whether a node of a name has
    joined, be it there or not.
    """

    def __init__(
        self,
        clock: Clock,
        store: NodeStore,
        houses: Sequence[House],
        links: NodeLinks,
        *,
        limits: RegistryLimits | None = None,
        wanted: WantedModels | None = None,
        is_keyed: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._clock, self._houses, self._links = clock, tuple(houses), links
        self.limits = limits or RegistryLimits()
        self._wanted, self._is_keyed = wanted, is_keyed
        self._nodes: dict[str, Node] = {}
        self._kept_bytes = 0
        self._drained: set[str] = set()
        self._memory = NodeMemory(store, self._remembered)
        self._log = structlog.get_logger()
        for house in houses:
            house.reports = self

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def listed(self) -> list[dict[str, Any]]:
        """Return every node as ``GET /nodes`` shows it, by name."""
        now, date, limits = self._clock.now(), self._clock.wall(), self.limits.state
        nodes = sorted(self._nodes.values(), key=lambda node: node.node_id)
        return [shown_node(node, limits, now, date) for node in nodes]

    def shown(self, node_id: str) -> dict[str, Any] | None:
        """Return a node as ``GET /nodes/{id}`` shows it; None if there is none."""
        if (node := self._nodes.get(node_id)) is None:
            return None
        now, date, limits = self._clock.now(), self._clock.wall(), self.limits.state
        errors = shown_errors(node, now, date)
        return {**shown_node(node, limits, now, date), "errors": errors}

    def last_beat(self, node_id: str) -> Beat | None:
        """Return the last beat of a node, to read the next one by."""
        node = self._nodes.get(node_id)
        return None if node is None else node.beat

    def restore(self) -> None:
        """Go on with the nodes of an earlier process.

        Each counts as if it had beaten now, since none could while there was no hub.
        """
        now = self._clock.now()
        for kept in self._memory.read():
            if kept.is_drained:
                self._drained.add(kept.node_id)
            if kept.beat:
                self._restore(kept, now)

    def _restore(self, kept: RememberedNode, now: float) -> None:
        sender = Sender(kept.peer, kept.node_id if kept.has_key else None)
        try:
            beat = kept.read_beat()
            self._check_room(beat, None)
        except BeatError:
            self._memory.note(kept.node_id)
            return
        node = Node(beat, sender, kept.claim, StateFacts(now))
        self._keep(node)
        self._link(node)
        self._push(node, now)

    def beat(self, beat: Beat, sender: Sender) -> dict[str, Any]:
        """Take in a beat; return the answer. Raises `BeatError`."""
        now = self._clock.now()
        node = self._nodes.get(beat.node_id)
        had_key = node is not None and node.sender.has_key
        check_sender(beat, sender, has_key=had_key or self._is_keyed(beat.node_id))
        if node is not None and node.is_old(beat):
            return self._answer(node)
        self._check_room(beat, node)
        machine = machine_behind(beat, sender, node)
        if node is None:
            node = Node(beat, sender, NameClaim(machine), StateFacts(now))
            self._keep(node)
            self._memory.note(node.node_id)
            self._log.info(log.NODE_REGISTERED, node=node.node_id, address=sender.peer)
        else:
            age_s = now - node.state.beaten_at
            check_claim(node, machine, is_silent=age_s > self.limits.state.ttl_s)
            self._note_change(node, beat, sender, machine)
            self._kept_bytes += beat.kept_bytes - node.beat.kept_bytes
        node.take(beat, sender, now)
        self._link(node)
        self._push(node, now)
        return self._answer(node)

    def _check_room(self, beat: Beat, node: Node | None) -> None:
        nodes, kept, most = len(self._nodes), self._kept_bytes, self.limits
        check_room(beat, node, nodes=nodes, kept_bytes=kept, most=most)

    def _note_change(
        self, node: Node, beat: Beat, sender: Sender, machine: str
    ) -> None:
        """Take in which machine it is now, and have what lasts written."""
        if machine != node.claim.holder:
            self._log.info(log.NODE_REGISTERED, node=node.node_id, address=sender.peer)
            node.claim = node.claim.taken_by(machine)
            self._memory.note(node.node_id)
        elif sender != node.sender or not is_same_node(node.beat, beat):
            self._memory.note(node.node_id)

    def _keep(self, node: Node) -> None:
        node.is_drained = node.node_id in self._drained
        node.note_drain()
        self._nodes[node.node_id] = node
        self._kept_bytes += node.beat.kept_bytes

    def relink(self, node_id: str) -> None:
        """Ask again how a node is reached: that has changed since its last beat."""
        if (node := self._nodes.get(node_id)) is not None:
            self._link(node)
            self._push(node, self._clock.now())

    def _link(self, node: Node) -> None:
        node.link = self._links.link_of(node.beat, node.sender)

    def _push(self, node: Node, now: float) -> None:
        """Tell the houses that a node's labels match, if something has changed."""
        facts = node.facts(now, self.limits.state)
        node.changes_at = next_change(node.state, now, self.limits.state)
        houses = self._houses_of(node)
        for house in node.houses:
            if house not in houses:
                house.remove(node.node_id)
        if facts == node.told and houses == node.houses:
            return
        self._log_state(node, facts.state)
        node.told, node.houses = facts, houses
        for house in houses:
            house.put(facts)

    def _houses_of(self, node: Node) -> Sequence[House]:
        labels = node.labels
        return tuple(one for one in self._houses if one.labels.matches(labels))

    def _log_state(self, node: Node, state: NodeState) -> None:
        before = None if node.told is None else node.told.state
        if before in {None, state}:
            return
        reason = node.errors[-1].reason if state is NodeState.DEGRADED else ""
        self._log.info(
            log.NODE_STATE, node=node.node_id, before=before, after=state, reason=reason
        )

    def failed(self, node_id: str, reason: str) -> None:
        """Take in that a request failed on a node, as failures are counted."""
        if (node := self._nodes.get(node_id)) is not None:
            now = self._clock.now()
            node.note_failure(reason, now)
            self._push(node, now)

    def answered(self, node_id: str) -> None:
        """Take in that a node answered a request."""
        node = self._nodes.get(node_id)
        if node is not None and node.state.failures:
            node.note_success()
            self._push(node, self._clock.now())

    async def run(self) -> None:
        """Let time pass, until this is cancelled."""
        while True:
            before = self._clock.now()
            await asyncio.sleep(_TICK_S)
            self._spare(self._clock.now() - before - _TICK_S)
            self.tick()

    def _spare(self, away_s: float) -> None:
        """Take in for how long this machine slept, so that no beat could arrive."""
        if away_s < _ASLEEP_S:
            return
        now = self._clock.now()
        for node in self._nodes.values():
            node.spare(away_s, now)
            node.changes_at = next_change(node.state, now, self.limits.state)

    def tick(self) -> None:
        """Compute every state anew, forget silent nodes, write what has changed."""
        now, limits = self._clock.now(), self.limits.state
        for node in list(self._nodes.values()):
            if now < node.changes_at:
                continue  # as nearly all: 1 000 nodes are looked at in 30 µs
            if is_removed(node.state, now, limits):
                self._forget(node, "it was silent for too long")
            elif not node.is_told_at(now, limits):
                self._push(node, now)
        self._memory.flush()

    def flush(self) -> None:
        """Write what has changed since the last tick."""
        self._memory.flush()

    def _forget(self, node: Node, reason: str) -> None:
        del self._nodes[node.node_id]
        self._kept_bytes -= node.beat.kept_bytes
        for house in node.houses:
            house.remove(node.node_id)
        self._links.forget(node.node_id)
        self._memory.note(node.node_id)
        self._log.info(log.NODE_REMOVED, node=node.node_id, reason=reason)

    def drain(self, node_id: str, *, is_drained: bool) -> bool:
        """Send a node no new requests, or do so again; False if there is none.

        The order outlasts restarts, of the hub and of the node. Raises `StoreError` if
        it can't be written; then nothing changes.
        """
        node = self._nodes.get(node_id)
        if node is None and (is_drained or node_id not in self._drained):
            return False
        before = set(self._drained)
        (self._drained.add if is_drained else self._drained.discard)(node_id)
        self._memory.note(node_id)
        try:
            self._write_order(node, is_drained=is_drained)
        except BaseException:
            self._drained = before
            raise
        return True

    def _write_order(self, node: Node | None, *, is_drained: bool) -> None:
        if node is None:
            self._memory.write()
            return
        before, node.is_drained = node.is_drained, is_drained
        try:
            self._memory.write()
        except BaseException:
            node.is_drained = before
            raise
        node.note_drain()
        self._push(node, self._clock.now())

    def remove(self, node_id: str) -> bool:
        """Forget a node and its drain, and cut its requests; False if there is none.

        It is there again with its next beat. Raises `StoreError` if that it was can't
        be written.
        """
        node = self._nodes.get(node_id)
        if node is None and node_id not in self._drained:
            return False
        self._drained.discard(node_id)
        if node is not None:
            self._forget(node, "it was ordered")
        self._memory.note(node_id)
        self._memory.write()
        return True

    def _remembered(self, node_id: str) -> RememberedNode | None:
        node = self._nodes.get(node_id)
        if node is not None:
            return node.remembered()
        if node_id in self._drained:
            return RememberedNode(node_id, is_drained=True)
        return None

    def _answer(self, node: Node) -> dict[str, Any]:
        """Return the answer to a beat; former agents heed none of it."""
        wanted = self._wanted.wanted_by(node.beat) if self._wanted is not None else ()
        return {
            "status": "ok",
            "accepted": node.seq or None,
            "next_beat_s": min(self.limits.beat_s, self.limits.state.ttl_s / 3),
            "wanted_models": list(wanted),
            "drain": node.is_drained,
            "message": node.link.fault,
        }
