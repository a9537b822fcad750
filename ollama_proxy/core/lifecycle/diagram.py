"""Draw the states of an instance from the table: ``make docs`` puts it into a page.

The table of `transitions` gives the rule for an event in a state, and the rule gives
the next state. So the edges are found by trying: every event is applied to every kind
of record that can be reached from a cold one.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from typing import TypeAlias

from ollama_proxy.base.errors import IllegalTransition
from ollama_proxy.core.lifecycle.events import (
    Abandoned,
    Accepted,
    Event,
    Failed,
    Forgiven,
    Gone,
    LeaseGranted,
    LimitReached,
    Lost,
    Progressed,
    Ready,
    Released,
    Restored,
    Served,
    StopFailed,
    StopRequested,
    Surplus,
    Tick,
    Unanswered,
    Used,
    Wake,
)
from ollama_proxy.core.lifecycle.record import (
    Fault,
    LaunchId,
    Lockout,
    Policy,
    Progress,
    Record,
    Stage,
    State,
)
from ollama_proxy.core.lifecycle.transitions import step

_LAUNCH = LaunchId("launch")
_SOON_S, _LATE_S = 1.0, 100_000.0
_POLICIES = (Policy(), Policy(ends_with_proxy=True), Policy(max_lifetime_s=10.0))
_EVENTS: tuple[Event, ...] = (
    Wake(_LAUNCH),
    Wake(_LAUNCH, forced=True),
    Accepted(_LAUNCH),
    Unanswered(_LAUNCH),
    Progressed(_LAUNCH, Progress(Stage.LOADING)),
    Ready(_LAUNCH),
    Failed(_LAUNCH, Fault("broken", "it broke")),
    Lost(_LAUNCH, "it was lost"),
    Gone(_LAUNCH),
    StopFailed(_LAUNCH, "no"),
    LeaseGranted(_LAUNCH),
    LeaseGranted(_LAUNCH, yields=True),
    Used(_LAUNCH),
    Released(_LAUNCH),
    Released(_LAUNCH, used=True),
    Released(_LAUNCH, yields=True),
    StopRequested(),
    Surplus(),
    Served(),
    LimitReached(Lockout("launch_limit", "too many")),
    Forgiven(),
    Abandoned(_LAUNCH),
    Restored(),
    Tick(),
)
_Edges: TypeAlias = dict[tuple[State, State], set[str]]


def state_diagram() -> str:
    """Return the states and the events that lead from one to another, in Mermaid."""
    lines = ["stateDiagram-v2", "    [*] --> cold"]
    edges = _edges()
    states = list(State)
    for source, target in sorted(edges, key=lambda e: [states.index(s) for s in e]):
        names = ", ".join(sorted(edges[source, target]))
        lines.append(f"    {_name(source)} --> {_name(target)}: {names}")
    return "\n".join(lines)


def _name(state: State) -> str:
    """Return a state as Mermaid takes it: without a hyphen."""
    return state.value.replace("-", "")


def _edges() -> _Edges:
    """Return the events of each change of state that can happen."""
    edges: _Edges = defaultdict(set)
    for policy in _POLICIES:
        seen = set()
        waiting = deque([Record()])
        while waiting:
            record = waiting.popleft()
            for event, new in _followers(record, policy):
                if new.state is not record.state:
                    edges[record.state, new.state].add(type(event).__name__)
                if (kind := _kind(new)) not in seen:
                    seen.add(kind)
                    waiting.append(new)
    return edges


def _followers(record: Record, policy: Policy) -> Iterator[tuple[Event, Record]]:
    """Yield each event that can happen to a record, soon or late, with what follows."""
    for event in _EVENTS:
        for passed_s in (_SOON_S, _LATE_S):
            now = record.since + passed_s
            try:
                yield event, step(record, event, now=now, policy=policy).record
            except IllegalTransition:
                continue


def _kind(record: Record) -> tuple[object, ...]:
    """Return what of a record decides which states can follow; bounded in number."""
    return (
        record.state,
        record.accepted,
        record.adopted,
        record.failed,
        record.progress.stage,
        min(record.keeping, 2),
        min(record.yielding, 2),
        min(record.failures, 3),
        record.lockout is None,
        record.retry_at > record.since,
    )
