"""Decide the life of one instance: `step` and its table.

`step` is the only way in which an instance changes state. It is pure: time is the
argument ``now`` (seconds since the epoch), and nothing is awaited, read or written. It
knows nothing about clouds, sockets or clients.

`step` looks up the pair (state, event) in a table. A pair that is not in the table is a
defect of the caller and raises `IllegalTransition` with both names. An event about
another launch than the record's is outdated and changes nothing.

The rules of the table are in `rules`, `lease_rules`, `pool_rules` and `restart_rules`,
the moments at which time changes a record in `deadlines`, and the commands that follow
from a record in `commands`.
"""

from collections.abc import Callable
from typing import NamedTuple

from ollama_proxy.base.errors import IllegalTransition
from ollama_proxy.core.lifecycle import lease_rules, pool_rules, restart_rules, rules
from ollama_proxy.core.lifecycle.commands import Command, command_for
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
from ollama_proxy.core.lifecycle.record import Policy, Record, State


class Step(NamedTuple):
    """Holds the record after an event, and the command that it asks for."""

    record: Record
    command: Command | None


def step(record: Record, event: Event, *, now: float, policy: Policy) -> Step:
    """Return the record after ``event``, and the command that follows from it.

    Raises `IllegalTransition` for a pair of state and event that can't happen.
    """
    launch_id = getattr(event, "launch_id", None)
    is_of_another = launch_id != record.launch_id and launch_id is not None
    if is_of_another and not isinstance(event, (Wake, LeaseGranted)):
        return Step(record, command_for(record))
    rule = _TABLE.get((record.state, type(event)))
    if rule is None:
        raise IllegalTransition(
            f"event {type(event).__name__!r} can't happen in state "
            f"{record.state.value!r}"
        )
    new = rule(record, event, now, policy)
    return Step(new, command_for(new))


Rule = Callable[[Record, Event, float, Policy], Record]

_TABLE: dict[tuple[State, type[Event]], Rule] = {
    (State.COLD, Wake): rules.launch,
    (State.COLD, StopRequested): rules.stay,
    (State.COLD, Restored): restart_rules.restore,
    (State.COLD, Tick): rules.stay,
    (State.STARTING, Wake): rules.join,
    (State.STARTING, Accepted): rules.accept,
    (State.STARTING, Unanswered): rules.doubt,
    (State.STARTING, Progressed): rules.advance,
    (State.STARTING, Ready): rules.ready,
    (State.STARTING, Failed): rules.fail,
    (State.STARTING, Lost): rules.lose_launch,
    (State.STARTING, Gone): rules.lose_launch,
    (State.STARTING, StopRequested): rules.stop,
    (State.STARTING, Restored): restart_rules.resume,
    (State.STARTING, Tick): rules.tick_starting,
    (State.READY, Wake): rules.stay,  # only responses count as use
    (State.READY, Lost): rules.lose,
    (State.READY, Gone): rules.lose,
    (State.READY, LeaseGranted): lease_rules.lease,
    (State.READY, Used): lease_rules.use,
    (State.READY, Released): lease_rules.release_ready,
    (State.READY, StopRequested): rules.drain,
    (State.READY, Restored): restart_rules.adopt,
    (State.READY, Tick): rules.tick_ready,
    (State.DRAINING, Wake): rules.stay,  # its request waits on
    (State.DRAINING, Lost): rules.lose_drained,
    (State.DRAINING, Gone): rules.lose_drained,
    (State.DRAINING, Used): rules.stay,
    (State.DRAINING, Released): lease_rules.release_drained,
    (State.DRAINING, StopRequested): rules.stay,
    (State.DRAINING, Restored): restart_rules.restore_drained,
    (State.DRAINING, Tick): rules.tick_draining,
    (State.STOPPING, Wake): rules.unlock,  # its request waits on
    (State.STOPPING, Accepted): rules.stay,  # the call ended late
    (State.STOPPING, Unanswered): rules.stay,
    (State.STOPPING, Progressed): rules.stay,
    (State.STOPPING, Ready): rules.stay,
    (State.STOPPING, Failed): rules.stay,
    (State.STOPPING, Lost): rules.stay,
    (State.STOPPING, Gone): rules.vanish,
    (State.STOPPING, StopFailed): rules.note_stop_failure,
    (State.STOPPING, Used): rules.stay,
    (State.STOPPING, Released): lease_rules.release,
    (State.STOPPING, StopRequested): rules.stay,
    (State.STOPPING, Restored): restart_rules.restore,
    (State.STOPPING, Tick): rules.stay,
    (State.COOLDOWN, Wake): rules.launch,
    (State.COOLDOWN, StopRequested): rules.stay,
    (State.COOLDOWN, Restored): restart_rules.restore,
    (State.COOLDOWN, Tick): rules.tick_cooldown,
    **{(state, Served): pool_rules.serve for state in State},
    **{(state, LimitReached): rules.stay for state in State},
    (State.COLD, LimitReached): pool_rules.limit,
    (State.STOPPING, LimitReached): pool_rules.limit,
    (State.COOLDOWN, LimitReached): pool_rules.limit,
    **{(state, Forgiven): rules.stay for state in State},
    (State.STOPPING, Forgiven): pool_rules.forgive,
    (State.COOLDOWN, Forgiven): pool_rules.forgive,
    **{(state, Surplus): rules.stay for state in State},
    (State.READY, Surplus): rules.drain,
    **{(state, Abandoned): rules.stay for state in State},
    (State.STARTING, Abandoned): pool_rules.abandon,
    (State.STOPPING, Abandoned): pool_rules.abandon,
}
