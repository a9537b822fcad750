"""Tell why an instance ended, by what its backend saw or raised."""

from ollama_proxy.base.errors import BackendError
from ollama_proxy.core.lifecycle.events import Failed, Gone, Lost
from ollama_proxy.core.lifecycle.record import Fault, LaunchId
from ollama_proxy.fleet.backend import Observation, Phase

_FINAL = frozenset({"image", "spec"})
"""Reasons that last until a person changes something."""


def refused(launch_id: LaunchId, error: BackendError) -> Failed:
    """Return the end of a launch that the cloud refused."""
    fault = Fault(error.reason, str(error) or type(error).__name__, error.final)
    return Failed(launch_id, fault, error.report)


def failed(launch_id: LaunchId, seen: Observation) -> Failed:
    """Return the end of a launch that is there and will never serve."""
    reason = seen.reason or "instance"
    message = seen.detail or "the instance has failed"
    return Failed(launch_id, Fault(reason, message, reason in _FINAL), seen.report)


def ended(launch_id: LaunchId, seen: Observation, last_words: str) -> Gone | Lost:
    """Return the end of an instance: `Gone`, or `Lost` if it must still be stopped.

    ``last_words``: the backend's last message while the instance existed.
    """
    if seen.phase is Phase.GONE:
        message = seen.detail or _gone(last_words)
        return Gone(launch_id, message, seen.reason or "lost", seen.report)
    message = seen.detail or "the instance can't serve any more"
    return Lost(launch_id, message, seen.reason or "lost", seen.report)


def _gone(last_words: str) -> str:
    said = "the cloud says that the instance does not exist any more"
    return f"{said}; before that it said: {last_words}" if last_words else said
