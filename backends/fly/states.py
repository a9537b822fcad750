"""Assess what a machine's state means for its launch."""

from dataclasses import dataclass
from enum import Enum, auto

from ollama_proxy.backends.fly.machines import RESTING, Machine


class Assessment(Enum):
    """Names the assessment of a machine."""

    GONE = auto()
    PENDING = auto()
    FAILED = auto()
    MAYBE_READY = auto()


@dataclass(frozen=True, slots=True)
class StateContext:
    """Holds what is known besides the state.

    ``keeps``: a machine that rests is the end of a launch. ``told_to_stop``: by us.
    ``start_not_visible_yet``: it was
    started so lately that the API may still show it at rest.
    """

    keeps: bool
    told_to_stop: bool
    start_not_visible_yet: bool


def assess(machine: Machine, known: StateContext) -> tuple[Assessment, str]:
    """Return what to think of a machine, and why, in words.

    Treat unknown states as pending: the machine exists and is billed. So does one
    on a host that can't be reached, whatever its last state was.
    """
    thought, why = Assessment.PENDING, machine.state
    rests = machine.state in RESTING
    if machine.host_status == "unreachable" and not (known.told_to_stop and rests):
        return Assessment.PENDING, f"{why}, as last known: its host can't be reached"
    match machine.state:
        case "destroyed" | "replaced" | "migrated":
            thought = Assessment.GONE
        case "stopped" | "suspended" if known.start_not_visible_yet:
            why = "started, not yet shown"
        case "stopped" | "suspended" if known.keeps:
            thought = Assessment.GONE
        case "stopped" | "suspended" | "stopping" | "suspending":
            thought, why = Assessment.FAILED, f"the machine is {machine.state}"
        case "failed" | "launch_failed" | "destroying":
            thought, why = Assessment.FAILED, f"the machine is {machine.state}"
        case "started":
            thought = Assessment.MAYBE_READY
    return thought, why
