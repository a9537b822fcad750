"""Hold one node as an instance to lease; the proxy neither starts nor stops it.

Its record is a value in memory: what leases and ``/status`` read. The state of the node
is computed elsewhere and given in `NodeFacts`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.lifecycle.events import Event, LeaseGranted, Released, Used
from ollama_proxy.core.lifecycle.lease_rules import lease, release, use
from ollama_proxy.core.lifecycle.record import LaunchId, Policy, Record, State
from ollama_proxy.core.lifecycle.transitions import Rule
from ollama_proxy.fleet.node_facts import NodeFacts, NodeReports
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.upstream.endpoint import Upstream

_POLICY: Final = Policy(
    idle_timeout_s=math.inf, max_lifetime_s=math.inf, is_always_on=True, is_kept=True
)
_RULES: Final[Mapping[type[Event], Rule]] = {
    LeaseGranted: lease,
    Used: use,
    Released: release,
}
"""All that happens to the record of a node; it has no other events."""


class NodeInstance:
    """Holds the facts and the leases of a node of one offer.

    ``reports``: returns what takes in how requests ended, if anything does by now.
    """

    policy = _POLICY
    use_grain_s = math.inf

    def __init__(
        self,
        facts: NodeFacts,
        offer: Offer,
        launch_id: LaunchId,
        clock: Clock,
        reports: Callable[[], NodeReports | None],
    ) -> None:
        self.slot = f"{offer.name}/{facts.node_id}"
        self.offer = offer
        self.node_id: str | None = facts.node_id
        self._clock = clock
        self._reports = reports
        self._record = Record(since=clock.now(), last_used=clock.now())
        self.begin_anew(launch_id)
        self.take(facts)

    @property
    def record(self) -> Record:
        """Return its state and its leases, like those of other instances."""
        return self._record

    def begin_anew(self, launch_id: LaunchId) -> None:
        """Begin with another process of the node: the leases before are not its own."""
        now = self._clock.now()
        self._record = Record(since=now, launch_id=launch_id, last_used=now)

    def take(self, facts: NodeFacts) -> None:
        """Take in what is known of the node now."""
        self.facts = facts
        self.upstream: Upstream | None = facts.upstream
        self.serves_all = facts.serves_all
        state = _state_of(facts)
        if state is not self._record.state:
            since = self._clock.now()
            self._record = replace(self._record, state=state, since=since)

    def apply(self, event: Event) -> None:
        """Count the leases; an event of another process of it changes nothing."""
        rule = _RULES.get(type(event))
        launch_id = getattr(event, "launch_id", None)
        if rule is not None and launch_id == self._record.launch_id:
            self._record = rule(self._record, event, self._clock.now(), _POLICY)

    def note_use(self, _launch_id: LaunchId) -> None:
        """Save nothing: no process after this one takes the node up."""

    def mark_alive(self) -> None:
        """Conclude nothing: whether an answer counts as one is judged at its begin."""

    def check_now(self) -> None:
        """Look at nothing: its beats tell, and how its requests end."""

    def request_failed(self, reason: str) -> None:
        """Report that a request failed there."""
        if (reports := self._reports()) is not None:
            reports.failed(self.facts.node_id, reason)

    def request_answered(self) -> None:
        """Report that it began an answer that is no failure."""
        if (reports := self._reports()) is not None:
            reports.answered(self.facts.node_id)


def _state_of(facts: NodeFacts) -> State:
    """Return the state that leases go by: ready if it may get requests."""
    if facts.takes_work and facts.upstream is not None:
        return State.READY
    return State.DRAINING if facts.is_draining else State.COLD
