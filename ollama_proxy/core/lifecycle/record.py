"""Hold what is known and intended of one instance, as it is stored.

Plain values: `lifecycle.step` alone decides how one follows another.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

LaunchId = NewType("LaunchId", str)
"""One attempt to have an instance; the tag it carries in its cloud."""


def is_launch(name: LaunchId) -> bool:
    """Tell a launch from a thing that has none, which backends name ``kind-id``."""
    return "-" not in name


class State(StrEnum):
    """Names the state that an instance is in."""

    COLD = "cold"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    COOLDOWN = "cool-down"


AT_REST: Final = frozenset({State.COLD, State.COOLDOWN})
"""The states without an instance."""


class Stage(StrEnum):
    """Names how far a launch has come, in order."""

    CREATING = "creating"
    BOOTING = "booting"
    CONNECTING = "connecting"
    PULLING = "pulling"
    LOADING = "loading"


@dataclass(frozen=True, slots=True)
class Fault:
    """Says why a launch failed.

    ``reason`` is a metric label, ``message`` a sentence for people. A ``final``
    fault does not go away by itself, so no request tries again: see `Lockout`.
    """

    reason: str
    message: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Lockout:
    """Says why requests launch nothing any more, and for how long.

    ``reason``: ``final`` or ``launch_limit``; ``message``: the same in words.
    ``until``: a moment; None: until a person wakes the instance, or changes the
    settings. ``fingerprint``: those settings, as they were.
    """

    reason: str
    message: str
    until: float | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Says what a launch is doing: a stage, its fraction done (0–1), and words.

    ``moved`` changes with every byte, even if the fraction stays the same.
    ``step`` is a part of the stage that the backend has a word for.
    ``problem`` is what stood in the way at the last try; it is no progress, whatever
    it is. ``needs_person``: a server that is coming up never has that one.
    """

    stage: Stage = Stage.CREATING
    fraction: float | None = None
    detail: str = ""
    moved: int = 0
    problem: str = ""
    needs_person: bool = False
    step: str = ""


@dataclass(frozen=True)
class Record:
    """Holds the facts and intents of one instance. Moments are those of `Clock.now`.

    ``accepted``: the cloud took the start call, so it is never made again.
    ``adopted``: the instance was up before this proxy process was.
    ``launched_at``: when it was first asked for, which no restart changes.
    ``furthest``: the last stage reached; one that comes again is no progress.
    ``failed``: what is being stopped counts as a failed launch. ``leaving``: its cloud
    had no room for this very launch, so another offer may be asked beside it.
    ``fault``: why the last launch failed; ``stop_error``: why the last stop did.
    ``paid_launches``: when those of the last hour were accepted that cost something,
    the newest last; none since a request was served. ``lockout``: why no request
    launches any more.
    """

    state: State = State.COLD
    since: float = 0.0
    launch_id: LaunchId | None = None
    model: str | None = None
    accepted: bool = False
    adopted: bool = False
    failed: bool = False
    leaving: bool = False
    woken_at: float = 0.0
    launched_at: float = 0.0
    progress: Progress = Progress()
    progress_at: float = 0.0
    furthest: Stage = Stage.CREATING
    leases: int = 0
    last_used: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    fault: Fault | None = None
    stop_error: str | None = None
    paid_launches: tuple[float, ...] = ()
    lockout: Lockout | None = None

    def leased(self, leases: int, last_used: float) -> "Record":
        """Return the record with so many leases, last used at that moment.

        As `dataclasses.replace` would, for less: each request does it twice.
        """
        new = object.__new__(Record)
        vars(new).update(vars(self), leases=leases, last_used=last_used)
        return new


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits how long things may take, in seconds, and how often they may fail.

    ``launch_limit``: how many launches within an hour may serve no request; None:
    any number, for they cost nothing. ``final_s``: how long a final fault keeps
    requests from launching. ``fingerprint`` names the settings that launches depend
    on. ``ends_with_proxy``: no instance outlives the proxy process. ``is_always_on``:
    the server is there anyway, so it is never given up while it can't be reached.
    ``gives_way``: there are other offers, so what does not come soon is left to them.
    """

    idle_timeout_s: float = 1800.0
    start_timeout_s: float = 1800.0
    drain_timeout_s: float = 600.0
    backoff_s: float = 10.0
    backoff_max_s: float = 900.0
    failure_limit: int = 3
    stable_s: float = 60.0
    max_lifetime_s: float = math.inf
    launch_limit: int | None = None
    final_s: float = 86_400.0
    fingerprint: str = ""
    ends_with_proxy: bool = False
    gives_way: bool = False
    is_always_on: bool = False
