"""Assess what a machine's state means for its launch."""

from ollama_proxy.backends.base.cloud import Assessment, StateContext
from ollama_proxy.backends.fly.machines import STOPPED, Machine


def assess(machine: Machine, known: StateContext) -> tuple[Assessment, str]:
    """Return the assessment of a machine, and the reason in words.

    Treat unknown states as pending: the machine exists and is billed. So does one on an
    unreachable host, whatever its last state was.
    """
    thought, why = Assessment.PENDING, machine.state
    is_stopped = machine.state in STOPPED
    if machine.host_status == "unreachable" and not (known.told_to_stop and is_stopped):
        return Assessment.PENDING, f"{why}, as last known: its host can't be reached"
    match machine.state:
        case "destroyed" | "replaced" | "migrated":
            thought = Assessment.GONE
        case "stopped" | "suspended" if known.start_not_visible_yet:
            why = "started, not yet shown"
        case "stopped" | "suspended" if known.standby:
            thought = Assessment.GONE
        case "stopped" | "suspended" | "stopping" | "suspending":
            thought, why = Assessment.FAILED, f"the machine is {machine.state}"
        case "failed" | "launch_failed" | "destroying":
            thought, why = Assessment.FAILED, f"the machine is {machine.state}"
        case "started":
            thought = Assessment.MAYBE_READY
    return thought, why
