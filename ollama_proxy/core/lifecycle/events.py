"""What happens to an instance."""

from dataclasses import dataclass

from ollama_proxy.core.lifecycle.record import Fault, LaunchId, Progress


@dataclass(frozen=True, slots=True)
class Wake:
    """A request, or with ``forced`` a person, needs an instance."""

    launch_id: LaunchId
    model: str | None = None
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """The cloud took the start call."""

    launch_id: LaunchId


@dataclass(frozen=True, slots=True)
class Progressed:
    """The launch was seen at some stage."""

    launch_id: LaunchId
    progress: Progress


@dataclass(frozen=True, slots=True)
class Ready:
    """The instance can serve."""

    launch_id: LaunchId


@dataclass(frozen=True, slots=True)
class Failed:
    """The launch can't succeed any more.

    ``report``: longer words of the backend, here and in the next two.
    """

    launch_id: LaunchId
    fault: Fault
    report: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """An instance that was there does not answer any more, or has vanished."""

    launch_id: LaunchId
    message: str
    reason: str = "lost"
    report: str = ""


@dataclass(frozen=True, slots=True)
class Gone:
    """The cloud said clearly that nothing of this launch exists.

    ``message``: why, as far as anybody said.
    """

    launch_id: LaunchId
    message: str = "the cloud says that the instance does not exist any more"
    reason: str = "lost"
    report: str = ""


@dataclass(frozen=True, slots=True)
class StopFailed:
    """A stop call did not succeed; the instance may still cost money."""

    launch_id: LaunchId
    message: str


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """A request was handed to the instance."""

    launch_id: LaunchId


@dataclass(frozen=True, slots=True)
class Used:
    """The instance works on a request: a word of its answer came, or bytes moved."""

    launch_id: LaunchId


@dataclass(frozen=True, slots=True)
class Released:
    """A request that was handed to the instance has ended.

    ``used``: it had succeeded, or begun to, so its end is use of the instance.
    """

    launch_id: LaunchId
    used: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A person, or the end of the proxy, wants the instance gone."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The record was read from the store by a new proxy process."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Wake
    | Accepted
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
    | Restored
    | Tick
)
