"""The exceptions of the proxy, named after what to do next.

Every class carries ``reason``, a short constant that becomes a metric label and
the ``reason`` of log lines; the message is one sentence for people.
"""

from collections.abc import Sequence
from typing import ClassVar


class ProxyError(Exception):
    """Anything that the proxy itself reports."""

    reason: ClassVar[str] = "internal"


class StartupError(ProxyError):
    """The proxy cannot start; the message says what to change."""

    reason = "startup"


class ConsentError(StartupError):
    """What would be touched has no mark of ours: a person has to name it first.

    ``names`` are the ids that a yes has to name.
    """

    reason = "consent"

    def __init__(self, message: str, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


class SettingsError(StartupError):
    """The settings are wrong; every fault is listed, not only the first."""

    reason = "settings"

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class StoreError(ProxyError):
    """The state could not be written, so nothing that needs it may happen."""

    reason = "store"


class IllegalTransition(ProxyError):  # noqa: N818 - named after the pair, not the class
    """An event came in a state where it can't happen: a defect in the caller."""

    reason = "illegal_transition"


class BackendError(ProxyError):
    """A call to a cloud did not do what it was asked.

    A ``final`` one comes again as long as nobody changes anything. ``report`` is what
    there is to read besides the message: up to 8 KB of it are logged and kept.
    """

    reason = "backend"
    final: ClassVar[bool] = False

    def __init__(self, message: str = "", *, report: str = "") -> None:
        super().__init__(message)
        self.report = report


class TransientError(BackendError):
    """The same call may succeed later: a time-out, a 5xx, a rate limit."""

    reason = "transient"


class RateLimitError(TransientError):
    """The call was refused for the number of calls, and did nothing.

    ``retry_after_s``: how long the cloud wants no other; None if it did not say.
    """

    reason = "rate_limit"

    def __init__(
        self, message: str = "", *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ConflictError(TransientError):
    """The thing is in use, or in a state that does not allow this now."""

    reason = "conflict"


class NotFoundError(BackendError):
    """The cloud says that there is nothing of that id."""

    reason = "not_found"


class OutcomeUnknownError(BackendError):
    """The call may or may not have acted: look before anything else."""

    reason = "outcome_unknown"


class CapacityError(BackendError):
    """The cloud has no room for this spec now; another offer may have."""

    reason = "capacity"


class CredentialsError(BackendError):
    """A person must act: the key is wrong, expired or lacks a right."""

    reason = "credentials"


class SpecError(BackendError):
    """What is configured can never work: no such type, image or model."""

    reason = "spec"
    final = True


class TwinError(SpecError):
    """Another proxy lives by a copy of this state folder, and has an instance."""

    reason = "copied"
    final = False


class ProgramError(SpecError):
    """A program of this machine is not there; it may be back at any moment."""

    reason = "program"
    final = False


class HoldLimitError(ProxyError):
    """No more requests may wait: too many, or too many bytes, wait already."""

    reason = "hold_limit"


class InstanceLostError(ProxyError):
    """The instance broke off in the middle of an answer."""

    reason = "lost"


class UpstreamError(ProxyError):
    """No byte of an answer has come from the instance.

    Unless the request may have ``arrived``, it can be sent again.
    """

    reason = "upstream"

    def __init__(self, message: str, *, arrived: bool) -> None:
        super().__init__(message)
        self.arrived = arrived
