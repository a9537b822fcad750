"""What exists in the fake Fly, how it changes with time, and what it costs."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

REGIONS = ("fra", "ams", "iad")
MANAGED = "ollama_proxy"
_STATUS = {
    "start": "started",
    "stop": "stopping",
    "suspend": "suspending",
    "destroy": "destroying",
}


@dataclass(slots=True)
class Timing:
    """How long things take, in seconds; ``lag_s`` is how late a list trails."""

    prepare_s: float = 0.0
    start_s: float = 0.0
    stop_s: float = 0.0
    suspend_s: float = 0.0
    destroy_s: float = 0.0
    destroyed_s: float = 0.0
    detach_s: float = 0.0
    lag_s: float = 0.0


@dataclass(slots=True)
class FakeMachine:
    """One machine. ``forced``: a state that time does not change.

    ``starts_itself_at``: when a machine that was never started starts all the same.
    """

    id: str
    name: str
    region: str
    config: dict[str, Any]
    made_at: float
    version: str
    doing: str = "created"
    since: float = 0.0
    forced: str | None = None
    host_status: str = "ok"
    nonce: str | None = None
    leased_until: float = 0.0
    starts_itself_at: float | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def metadata(self) -> dict[str, str]:
        found: dict[str, str] = self.config.setdefault("metadata", {})
        return found

    @property
    def environment(self) -> dict[str, str]:
        found: dict[str, str] = self.config.get("env", {})
        return found

    @property
    def volume(self) -> str | None:
        mounts = self.config.get("mounts", [])
        return mounts[0]["volume"] if mounts else None


@dataclass(slots=True)
class FakeVolume:
    """One volume on one host; ``host_is_full`` keeps machines from starting there."""

    id: str
    name: str
    region: str
    size_gb: int
    made_at: float
    source: str | None = None
    compute: dict[str, Any] | None = None
    host_is_full: bool = False
    deleted_at: float | None = None


@dataclass(slots=True)
class FakeApp:
    """One app, with what is in it."""

    name: str
    org: str
    machines: dict[str, FakeMachine] = field(default_factory=dict)
    volumes: dict[str, FakeVolume] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class FakeFly:
    """One organisation. ``made``: number of machines of ours ever made.

    - ``others``: ids of machines of another deployment of this product.
    - ``hosts_refuse``: nothing can be changed on an unreachable host.
    - ``copies_refused``: no volume can be copied.
    - ``shows_events``: a machine is shown with its events, or they must be fetched;
      ``events_outlive``: even those of a deleted one can be.
    """

    now: Callable[[], float]
    timing: Timing = field(default_factory=Timing)
    apps: dict[str, FakeApp] = field(default_factory=dict)
    gone_apps: list[FakeApp] = field(default_factory=list)
    full: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    suspends: bool = True
    hosts_refuse: bool = False
    copies_refused: bool = False
    shows_events: bool = True
    events_outlive: bool = False
    made: int = 0
    starts: int = 0
    most_at_once: int = 0

    def add_app(self, name: str, org: str = "personal") -> FakeApp:
        app = self.apps[name] = FakeApp(name, org)
        return app

    def state(self, machine: FakeMachine) -> str:
        """Return a machine's state now."""
        now, timing = self.now(), self.timing
        if machine.doing == "destroy":
            return (
                "destroying" if now < machine.since + timing.destroy_s else "destroyed"
            )
        if machine.forced is not None:
            return machine.forced
        own = machine.starts_itself_at
        if machine.doing == "created":
            return "started" if own is not None and now >= own else "created"
        first, length_s, then = {
            "start": ("starting", timing.start_s, "started"),
            "stop": ("stopping", timing.stop_s, "stopped"),
            "suspend": ("suspending", timing.suspend_s, "suspended"),
        }[machine.doing]
        return first if now < machine.since + length_s else then

    def is_there(self, machine: FakeMachine) -> bool:
        """Tell whether the API still knows it; what is destroyed shows for a while."""
        gone_s = self.timing.destroy_s + self.timing.destroyed_s
        return machine.doing != "destroy" or self.now() < machine.since + gone_s

    def change(self, machine: FakeMachine, what: str, by: str = "user") -> None:
        self.tell(machine, what, status=_STATUS[what], source=by)
        machine.doing, machine.since, machine.forced = what, self.now(), None
        machine.starts_itself_at = None
        self.starts += what == "start"
        self.most_at_once = max(self.most_at_once, len(self.paid))

    def tell(
        self,
        machine: FakeMachine,
        kind: str,
        *,
        status: str,
        source: str = "flyd",
        request: dict[str, Any] | None = None,
    ) -> None:
        """Add an event to a machine, the newest first, as Fly has them."""
        event: dict[str, Any] = {"type": kind, "status": status, "source": source}
        event["timestamp"] = int(self.now() * 1000.0)
        if request is not None:
            event["request"] = request
        machine.events.insert(0, event)

    def exits(self, machine: FakeMachine, code: int, **told: object) -> None:
        """End a machine from within: with an exit code, or for want of memory."""
        exit_event = {"exit_code": code, "guest_exit_code": 0, "guest_signal": -1}
        exit_event |= {"oom_killed": False, "requested_stop": False, "signal": -1}
        request = {"exit_event": exit_event | told, "restart_count": 0}
        removes_itself = machine.config.get("auto_destroy")
        machine.doing = "destroy" if removes_itself else "stop"
        machine.since, machine.forced = self.now(), None
        self.tell(machine, "exit", status="stopped", request=request)

    def machines(self) -> list[FakeMachine]:
        return [m for app in self.apps.values() for m in app.machines.values()]

    def volumes(self) -> list[FakeVolume]:
        """Return the volumes that are still paid for."""
        every = [v for app in self.apps.values() for v in app.volumes.values()]
        return [volume for volume in every if volume.deleted_at is None]

    def gb_hours(self) -> float:
        """Return what volumes have cost: attached or not, until they were deleted."""
        return (
            sum(
                volume.size_gb * ((volume.deleted_at or self.now()) - volume.made_at)
                for app in (*self.apps.values(), *self.gone_apps)
                for volume in app.volumes.values()
            )
            / 3600.0
        )

    @property
    def paid(self) -> list[FakeMachine]:
        """What costs compute now, or may begin to by itself; strangers' aside."""
        free = {"stopped", "suspended", "destroying", "destroyed"}
        return [m for m in self.ours() if self.state(m) not in free]

    def ours(self) -> list[FakeMachine]:
        """Return the machines with our marks but for those of other deployments."""
        made = [m for m in self.machines() if MANAGED in m.metadata]
        return [m for m in made if m.id not in self.others]

    def running(self) -> list[FakeMachine]:
        return [m for m in self.ours() if self.state(m) in {"starting", "started"}]

    def holder(self, app: FakeApp, volume: FakeVolume) -> FakeMachine | None:
        """Return the machine that a volume is attached to."""
        for machine in app.machines.values():
            if machine.volume != volume.id:
                continue
            late = machine.since + self.timing.destroy_s + self.timing.detach_s
            if machine.doing != "destroy" or self.now() < late:
                return machine
        return None

    def deployment(
        self, app: FakeApp, name: str, owner: str, launch: str, *, runs: bool
    ) -> FakeMachine:
        """Add a machine and a volume of another proxy to an app; its lease is long."""
        marks = {"owner": owner, "launch": launch, "identity": launch}
        marks["lease"] = f"{self.now() + 1e9:.0f}"
        metadata = {f"{MANAGED}_{key}": value for key, value in marks.items()}
        volume = FakeVolume(f"vol_{owner[:8]}", f"ollama_{owner}", "fra", 8, self.now())
        app.volumes[volume.id] = volume
        machine = self.stranger(app, name)
        machine.config = {
            "image": "x:1",
            "metadata": {MANAGED: "true"} | metadata,
            "mounts": [{"volume": volume.id, "path": "/models"}],
        }
        machine.doing = "start" if runs else "stop"
        self.others.add(machine.id)
        return machine

    def stranger(self, app: FakeApp, name: str = "theirs") -> FakeMachine:
        """Add a machine of somebody else to an app."""
        machine = FakeMachine(
            uuid.uuid4().hex[:14], name, "fra", {"image": "x:1"}, self.now(), "v1"
        )
        machine.doing, machine.since = "start", self.now()
        app.machines[machine.id] = machine
        return machine
