"""Say which errors of a start call are worth another call, and for how long."""

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    CredentialsError,
    SpecError,
    TransientError,
)
from ollama_proxy.core.lifecycle.record import Policy
from ollama_proxy.core.offer_choice import gives_way

REFUSALS = (CapacityError, CredentialsError, SpecError)


class StartPatience:
    """Judges the errors of the start calls of one launch.

    If there are other offers, a cloud that accepts no call is given up in their favour.
    Not if a call of this process may have acted (``may_have_acted``): then only the
    cloud's answer ends it, or the start time-out.
    """

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._began_at = clock.now()
        self._tries = 0
        self.may_have_acted = False

    def is_worth_repeating(self, error: BaseException) -> bool:
        """Tell whether the same start call may succeed later, and should be made."""
        is_call = isinstance(error, BackendError | TimeoutError)
        if not is_call or isinstance(error, REFUSALS):
            return False
        self._tries += 1
        if not isinstance(error, TransientError):
            self.may_have_acted = True
        if not self._policy.gives_way or self.may_have_acted:
            return True
        return not gives_way(self._tries, self._clock.now() - self._began_at)
