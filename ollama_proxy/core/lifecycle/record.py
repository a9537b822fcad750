"""Hold the known and intended state of one instance, as it is stored.

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

    ``reason`` is a metric label, ``message`` a sentence for people. A ``final`` fault
    would recur, so no request launches again: see `Lockout`.
    """

    reason: str
    message: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Lockout:
    """Says why requests must not launch, and for how long.

    - ``reason``: ``final`` or ``launch_limit``; ``message``: the same in words.
    - ``until``: a moment; None: until a person wakes the instance or changes the
      settings.
    - ``fingerprint``: of those settings at the time.
    """

    reason: str
    message: str
    until: float | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Says what a launch is doing: a stage, its fraction done (0–1), and words.

    - ``moved``: changes with every byte, even if the fraction stays the same.
    - ``step``: a part of the stage, if the backend knows it.
    - ``problem``: the failure of the last attempt; it never counts as progress.
    - ``needs_person``: only a person can mend the problem. A server that is merely
      starting up never sets it.
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

    - ``accepted``: the cloud accepted the start call, so it is not repeated.
    - ``adopted``: the instance was running before this process of the proxy.
    - ``launched_at``: when it was first requested; a restart does not change it.
    - ``furthest``: the last stage reached; a repeated stage is no progress.
    - ``doubtful``: a start call may have acted, whose answer did not arrive.
    - ``failed``: the launch that is being stopped counts as failed.
    - ``yielding``: how many of the ``leases`` are of requests that may not wake an
      instance, and so don't keep one either.
    - ``leaving``: its cloud had no capacity for this very launch, so another offer may
      be tried beside it.
    - ``fault``: why the last launch failed; ``stop_error``: why the last stop did.
    - ``paid_launches``: when launches that cost something were accepted, within the
      last hour and since the last served request; the newest last.
    - ``lockout``: why requests must not launch.
    """

    state: State = State.COLD
    since: float = 0.0
    launch_id: LaunchId | None = None
    model: str | None = None
    accepted: bool = False
    adopted: bool = False
    doubtful: bool = False
    failed: bool = False
    leaving: bool = False
    woken_at: float = 0.0
    launched_at: float = 0.0
    progress: Progress = Progress()
    progress_at: float = 0.0
    furthest: Stage = Stage.CREATING
    leases: int = 0
    yielding: int = 0
    last_used: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    fault: Fault | None = None
    stop_error: str | None = None
    paid_launches: tuple[float, ...] = ()
    lockout: Lockout | None = None

    @property
    def keeping(self) -> int:
        """Return how many leases keep the instance from being idle."""
        return self.leases - self.yielding

    def leased(
        self, leases: int, last_used: float, yielding: int | None = None
    ) -> "Record":
        """Return the record with other counts of leases and time of last use.

        Faster than `dataclasses.replace`; each request calls it twice.
        """
        values = vars(self).copy()  # in half the time that it takes to fill another
        values["leases"], values["last_used"] = leases, last_used
        if yielding is not None:
            values["yielding"] = yielding
        new = object.__new__(Record)
        object.__setattr__(new, "__dict__", values)
        return new


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits how long things may take, in seconds, and how often they may fail.

    - ``launch_limit``: how many launches within an hour may serve no request; None: no
      limit, since launches are free.
    - ``final_s``: how long a final fault prevents launches by requests.
    - ``fingerprint``: of the settings that launches depend on.
    - ``ends_with_proxy``: no instance outlives the proxy process.
    - ``is_always_on``: somebody else manages the server, so it is never given up while
      it can't be reached.
    - ``gives_way``: there are other offers, so a slow launch is left for one of them.
    - ``is_kept``: the instance is not stopped for idleness.
    - ``lost_after_s``: how long its failed probes must go on until it counts as lost.
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
    is_kept: bool = False
    lost_after_s: float = 0.0
