"""Define the exceptions of the proxy, named after what to do next.

Every class carries ``reason``, a short constant that becomes a metric label and
the ``reason`` of log lines; the message is one sentence for people.
"""

from collections.abc import Sequence
from typing import ClassVar


class ProxyError(Exception):
    """Reports anything that the proxy itself finds wrong."""

    reason: ClassVar[str] = "internal"


class StartupError(ProxyError):
    """Reports that the proxy cannot start; the message says what to change."""

    reason = "startup"


class ConsentError(StartupError):
    """Reports that something without our tag would be changed or deleted.

    ``names``: the ids that the person must confirm.
    """

    reason = "consent"

    def __init__(self, message: str, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


class SettingsError(StartupError):
    """Reports wrong settings: every fault is listed, not only the first."""

    reason = "settings"

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class StoreError(ProxyError):
    """Reports that the state could not be written: nothing that needs it may happen."""

    reason = "store"


class IllegalTransition(ProxyError):  # noqa: N818 - named after the pair, not the class
    """Reports an event in a state where it can't happen: a defect in the caller."""

    reason = "illegal_transition"


class BackendError(ProxyError):
    """Reports that a call to a cloud did not do what it should.

    A ``final`` error recurs until a person changes something. ``report``: details
    besides the message; up to 8 KB are logged and kept.
    """

    reason = "backend"
    final: ClassVar[bool] = False

    def __init__(self, message: str = "", *, report: str = "") -> None:
        super().__init__(message)
        self.report = report


class TransientError(BackendError):
    """Reports that the same call may succeed later: a time-out, a 5xx, a rate limit."""

    reason = "transient"


class RateLimitError(TransientError):
    """Reports a call that was refused for its rate, and did nothing.

    ``retry_after_s``: pause that the cloud demands; None if it names none.
    """

    reason = "rate_limit"

    def __init__(
        self, message: str = "", *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ConflictError(TransientError):
    """Reports a thing that is in use, or in a state that does not allow this now."""

    reason = "conflict"


class HeldBackError(ConflictError):
    """Refuses an order until the proxy has deployed or deleted."""


class NotFoundError(BackendError):
    """Reports that the cloud has nothing of that id."""

    reason = "not_found"


class OutcomeUnknownError(BackendError):
    """Reports that a call may or may not have acted: look before anything else."""

    reason = "outcome_unknown"


class CapacityError(BackendError):
    """Reports that the cloud has no room for this spec now; another offer may have."""

    reason = "capacity"


class CredentialsError(BackendError):
    """Reports that a person must act: the key is wrong, expired or lacks a right."""

    reason = "credentials"


class SpecError(BackendError):
    """Reports settings that can never work: no such type, image or model."""

    reason = "spec"
    final = True


class TwinError(SpecError):
    """Reports that another proxy, on a copy of this state folder, has an instance."""

    reason = "copied"
    final = False


class ProgramError(SpecError):
    """Reports that a program of this machine is missing; it may be back any moment."""

    reason = "program"
    final = False


class HoldLimitError(ProxyError):
    """Reports that no more requests may wait: too many, or too many bytes, wait."""

    reason = "hold_limit"


class InstanceLostError(ProxyError):
    """Reports that the instance broke off in the middle of an answer."""

    reason = "lost"


class UpstreamError(ProxyError):
    """Reports that no byte of a response was received from the instance.

    The request can be sent again unless it may have ``arrived``; at once, unless it
    ``took_long`` to find that out.
    """

    reason = "upstream"

    def __init__(self, message: str, *, arrived: bool, took_long: bool = False) -> None:
        super().__init__(message)
        self.arrived = arrived
        self.took_long = took_long
