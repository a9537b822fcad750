"""What a machine's state means for its launch."""

from dataclasses import dataclass
from enum import Enum, auto

from ollama_proxy.backends.fly.machines import RESTING, Machine


class Verdict(Enum):
    """What is to be thought of a machine."""

    GONE = auto()
    COMING = auto()
    USELESS = auto()
    PERHAPS_SERVING = auto()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known besides the state.

    ``keeps``: a machine that rests is the end of a launch. ``told_to_stop``: by us.
    ``is_unshown``: it was
    started so lately that the API may still show it at rest.
    """

    keeps: bool
    told_to_stop: bool
    is_unshown: bool


def verdict(machine: Machine, known: Circumstances) -> tuple[Verdict, str]:
    """Return what to think of a machine, and why, in words.

    A state that nobody has heard of is one that comes: it exists and is paid for.
    So does one on a host that can't be reached, whatever its last state was.
    """
    thought, why = Verdict.COMING, machine.state
    rests = machine.state in RESTING
    if machine.host_status == "unreachable" and not (known.told_to_stop and rests):
        return Verdict.COMING, f"{why}, as last known: its host can't be reached"
    match machine.state:
        case "destroyed" | "replaced" | "migrated":
            thought = Verdict.GONE
        case "stopped" | "suspended" if known.is_unshown:
            why = "started, not yet shown"
        case "stopped" | "suspended" if known.keeps:
            thought = Verdict.GONE
        case "stopped" | "suspended" | "stopping" | "suspending":
            thought, why = Verdict.USELESS, f"the machine is {machine.state}"
        case "failed" | "launch_failed" | "destroying":
            thought, why = Verdict.USELESS, f"the machine is {machine.state}"
        case "started":
            thought = Verdict.PERHAPS_SERVING
    return thought, why
