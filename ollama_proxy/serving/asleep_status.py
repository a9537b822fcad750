"""Say why a request of a key that may not wake an instance is not served."""

from ollama_proxy.core.access.keys import Caller
from ollama_proxy.core.lifecycle.record import State
from ollama_proxy.core.ollama.error_bodies import ProvisioningStatus
from ollama_proxy.core.waiting_order import turn_of
from ollama_proxy.serving.cold_answers import ASLEEP
from ollama_proxy.serving.pool_status import PoolStatus

_HINT = (
    "the key {!r} may not start one: ask again while one is up, or ask whoever runs"
    " this proxy for a key that may wake, one without --no-wake"
)
_COMING = "the key {!r} may wait for it, though it may not start one itself"
_LATER_S = 60
_WHAT = {
    State.READY: "no instance that is up can serve it now",
    State.DRAINING: "the instance is about to stop",
    State.STOPPING: "the instance is about to stop",
}


def told_asleep(
    status: PoolStatus, caller: Caller, problem: str | None = None
) -> ProvisioningStatus:
    """Return why no instance serves a request, which starts none.

    ``problem``: the reason for this one request, if any.
    """
    key, waiting = caller.name, status.waiting(problem, turn_of(caller))
    foremost, is_ready = status.foremost(), status.pool.is_ready
    state = State.READY if is_ready else State.COLD
    if foremost is not None:
        state = foremost.record.state
    if problem is not None:
        return waiting._replace(message=f"{problem}; {_HINT.format(key)}")
    if state is State.STARTING:
        return waiting._replace(message=f"{waiting.message}; {_COMING.format(key)}")
    what = _WHAT.get(state, "no instance is up")
    return ProvisioningStatus(
        status=ASLEEP,
        message=f"{what}, and {_HINT.format(key)}",
        stage=None,
        progress=None,
        elapsed_s=None,
        eta_s=None,
        retry_after=waiting.retry_after or _LATER_S,
    )
