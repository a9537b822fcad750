"""Derive from a record what has to be done about an instance.

The command depends on the record alone, not on the event before it. So a repeated
`Tick` repeats the command, and work that a crash interrupted is resumed.
"""

import functools
from dataclasses import dataclass

from ollama_proxy.core.lifecycle.record import LaunchId, Record, State


@dataclass(frozen=True, slots=True)
class Start:
    """Ask the cloud for the instance, until it accepts."""

    launch_id: LaunchId


@dataclass(frozen=True, slots=True)
class Watch:
    """Bring the instance to readiness, then watch that it stays."""

    launch_id: LaunchId


@dataclass(frozen=True, slots=True)
class Stop:
    """Asks the cloud to remove the instance, until it confirms that it is gone."""

    launch_id: LaunchId


Command = Start | Watch | Stop


def command_for(record: Record) -> Command | None:
    """Return the command to carry out while the record stays the same."""
    if record.launch_id is None:
        return None
    return _duty(record.state, record.launch_id, accepted=record.accepted)


@functools.lru_cache(maxsize=64)  # called for each lease
def _duty(state: State, launch_id: LaunchId, *, accepted: bool) -> Command | None:
    match state:
        case State.STARTING if not accepted:
            return Start(launch_id)
        case State.STARTING | State.READY | State.DRAINING:
            return Watch(launch_id)
        case State.STOPPING:
            return Stop(launch_id)
        case _:
            return None
