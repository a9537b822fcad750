"""What an app's state means for its launch."""

from dataclasses import dataclass
from enum import Enum, auto

from ollama_proxy.backends.ovh.apps import App


class Verdict(Enum):
    """What is to be thought of an app."""

    GONE = auto()
    COMING = auto()
    USELESS = auto()
    WITHOUT_ROOM = auto()
    PERHAPS_SERVING = auto()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known besides the state.

    ``keeps``: an app that rests is the end of a launch, and is not deleted.
    ``told_to_stop``: by us. ``is_unshown``: it was started so lately that the
    platform may still show it at rest. ``waited_s``: since it was asked to run.
    ``served``: it was ready once.
    """

    keeps: bool
    told_to_stop: bool
    is_unshown: bool
    waited_s: float
    queue_timeout_s: float
    served: bool


def verdict(app: App, known: Circumstances) -> tuple[Verdict, str]:
    """Return what to think of an app, and why, in words.

    A state that nobody has heard of is one that comes: it exists and is paid for.
    """
    thought, why = Verdict.COMING, app.state.lower()
    match app.state:
        case "DELETED":
            thought = Verdict.GONE
        case "STOPPED" | "FAILED" if known.is_unshown and app.is_resting:
            why = "started, not yet shown"
        case "STOPPED" if known.keeps:
            thought = Verdict.GONE
        case "FAILED" if known.keeps and known.told_to_stop and app.is_resting:
            thought = Verdict.GONE
        case "FAILED" | "ERROR" | "STOPPED" | "STOPPING" | "DELETING":
            thought, why = Verdict.USELESS, app.why()
        case "QUEUED" | "INITIALIZING" if known.served:
            thought = Verdict.USELESS
            why = "the platform has taken the app's hardware away"
        case "QUEUED" if known.waited_s > known.queue_timeout_s:
            thought = Verdict.WITHOUT_ROOM
            why = f"there is no room: the app has waited {known.waited_s:.0f} s in line"
        case "STANDBY" if known.served:
            thought, why = Verdict.USELESS, "the platform has scaled the app to zero"
        case "RUNNING" | "SCALING" | "STANDBY":
            thought = Verdict.PERHAPS_SERVING
    return thought, why
