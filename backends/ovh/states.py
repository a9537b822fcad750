"""Assess what an app's state means for its launch."""

from ollama_proxy.backends.base.cloud import Assessment, StateContext
from ollama_proxy.backends.ovh.apps import App


def assess(
    app: App, known: StateContext, queue_timeout_s: float
) -> tuple[Assessment, str]:
    """Return the assessment of an app, and the reason in words.

    Treat unknown states as pending: the app exists and is billed.
    """
    thought, why = Assessment.PENDING, app.state.lower()
    match app.state:
        case "DELETED":
            thought = Assessment.GONE
        case "STOPPED" | "FAILED" if known.start_not_visible_yet and app.is_stopped:
            why = "started, not yet shown"
        case "STOPPED" if known.standby:
            thought = Assessment.GONE
        case "FAILED" if known.standby and known.told_to_stop and app.is_stopped:
            thought = Assessment.GONE
        case "FAILED" | "ERROR" | "STOPPED" | "STOPPING" | "DELETING":
            thought, why = Assessment.FAILED, app.why()
        case "QUEUED" | "INITIALIZING" if known.served:
            thought = Assessment.FAILED
            why = "the platform has taken the app's hardware away"
        case "QUEUED" if known.waited_s > queue_timeout_s:
            thought = Assessment.NO_CAPACITY
            why = f"there is no room: the app has waited {known.waited_s:.0f} s in line"
        case "STANDBY" if known.served:
            thought, why = Assessment.FAILED, "the platform has scaled the app to zero"
        case "RUNNING" | "SCALING" | "STANDBY":
            thought = Assessment.MAYBE_READY
    return thought, why
