"""List what happens to an instance."""

from dataclasses import dataclass

from ollama_proxy.core.lifecycle.record import Fault, LaunchId, Lockout, Progress


@dataclass(frozen=True, slots=True)
class Wake:
    """Reports that a request, or with ``forced`` a person, needs an instance.

    ``fault``: why the offer's last launch failed, if it was one of another slot.
    """

    launch_id: LaunchId
    model: str | None = None
    forced: bool = False
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Reports that the cloud accepted the start call."""

    launch_id: LaunchId


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Reports that a start call may have acted: its answer did not arrive."""

    launch_id: LaunchId


@dataclass(frozen=True, slots=True)
class Progressed:
    """Reports that the launch was seen at some stage."""

    launch_id: LaunchId
    progress: Progress


@dataclass(frozen=True, slots=True)
class Ready:
    """Reports that the instance can serve."""

    launch_id: LaunchId


@dataclass(frozen=True, slots=True)
class Failed:
    """Reports that the launch can't succeed any more.

    ``report``: details from the backend, here and in the next two.
    """

    launch_id: LaunchId
    fault: Fault
    report: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """Reports that an instance does not answer any more, or has vanished."""

    launch_id: LaunchId
    message: str
    reason: str = "lost"
    report: str = ""


@dataclass(frozen=True, slots=True)
class Gone:
    """Reports that the cloud states that nothing of this launch exists.

    ``message``: the cause, if known.
    """

    launch_id: LaunchId
    message: str = "the cloud says that the instance does not exist any more"
    reason: str = "lost"
    report: str = ""


@dataclass(frozen=True, slots=True)
class StopFailed:
    """Reports that a stop call failed; the instance may still cost money."""

    launch_id: LaunchId
    message: str


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """Reports that a request was handed to the instance.

    ``yields``: the request does not hold off the idle time-out.
    """

    launch_id: LaunchId
    yields: bool = False


@dataclass(frozen=True, slots=True)
class Used:
    """Reports work on a request: the answer has begun, or bytes moved."""

    launch_id: LaunchId


@dataclass(frozen=True, slots=True)
class Released:
    """Reports the end of a request that was sent to the instance.

    ``used``: its response succeeded, or began to, so its end counts as use.
    ``yields``: as it was granted.
    """

    launch_id: LaunchId
    used: bool = False
    yields: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Reports that a person, or the end of the proxy, stops the instance."""


@dataclass(frozen=True, slots=True)
class Surplus:
    """Reports that the pool has more instances than it needs, and this one no work."""


@dataclass(frozen=True, slots=True)
class Served:
    """Reports that another instance of the pool has served a request."""


@dataclass(frozen=True, slots=True)
class LimitReached:
    """Reports that the pool has made too many launches that served no request."""

    lockout: Lockout


@dataclass(frozen=True, slots=True)
class Forgiven:
    """Reports that a person wants every offer of the pool to be tried anew."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Reports that a person waits no longer for the cloud's word on a launch."""

    launch_id: LaunchId


@dataclass(frozen=True, slots=True)
class Restored:
    """Reports that a new proxy process has read the record from the store."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Reports that time has passed."""


Event = (
    Wake
    | Accepted
    | Unanswered
    | Progressed
    | Ready
    | Failed
    | Lost
    | Gone
    | StopFailed
    | LeaseGranted
    | Used
    | Released
    | StopRequested
    | Surplus
    | Served
    | LimitReached
    | Forgiven
    | Abandoned
    | Restored
    | Tick
)
