"""What exists in the fake AI Deploy, how it changes with time, and what it costs."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.dates import date_of

GB = 10**9
REGIONS = ("GRA", "BHS", "US-EAST-VA")


@dataclass(slots=True)
class Timing:
    """How long things take, in seconds; ``lag_s`` is how late what is shown trails."""

    queue_s: float = 0.0
    init_s: float = 0.0
    scale_s: float = 0.0
    stop_s: float = 0.0
    delete_s: float = 0.0
    deleted_s: float = 0.0
    lag_s: float = 0.0


@dataclass(slots=True)
class FakeApp:
    """One app. ``changes``: the requested changes, with their times.

    ``forced``: a state that time does not change; ``info``: its cause.
    """

    id: str
    region: str
    spec: dict[str, Any]
    made_at: float
    changes: list[tuple[float, str]] = field(default_factory=list)
    forced: str | None = None
    info: dict[str, str] | None = None
    replicas: int | None = None
    log: str = ""

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.spec["labels"]
        return labels

    @property
    def environment(self) -> dict[str, str]:
        return {one["name"]: one["value"] for one in self.spec.get("envVars", [])}


@dataclass(slots=True)
class FakeOvh:
    """One project in several regions. ``made`` counts apps of ours ever made."""

    now: Callable[[], float]
    timing: Timing = field(default_factory=Timing)
    apps: dict[str, FakeApp] = field(default_factory=dict)
    made: int = 0
    starts: int = 0
    full: set[str] = field(default_factory=set)
    url: str = ""

    def state(self, app: FakeApp, *, at: float | None = None) -> str:
        """Return its state now, or as it was at a moment."""
        now = self.now() if at is None else at
        past = [change for change in app.changes if change[0] <= now]
        if not past:
            return "QUEUED"
        moment, what = past[-1]
        age_s, timing = now - moment, self.timing
        if what == "delete":
            return "DELETING" if age_s < timing.delete_s else "DELETED"
        if app.forced is not None:
            return app.forced
        if what == "stop":
            return "STOPPING" if age_s < timing.stop_s else "STOPPED"
        return self._coming(app, age_s)

    def _coming(self, app: FakeApp, age_s: float) -> str:
        """Return the state of an app that was started so long ago."""
        timing = self.timing
        stages = {
            "QUEUED": float("inf") if app.region in self.full else timing.queue_s,
            "INITIALIZING": timing.init_s,
            "SCALING": timing.scale_s,
        }
        for state, length_s in stages.items():
            if age_s < length_s:
                return state
            age_s -= length_s
        return "RUNNING"

    def is_there(self, app: FakeApp) -> bool:
        """Tell whether the API still knows it; what is deleted shows for a while."""
        moment, what = app.changes[-1]
        gone_at = moment + self.timing.delete_s + self.timing.deleted_s
        return what != "delete" or self.now() < gone_at

    @property
    def paid(self) -> list[FakeApp]:
        """What costs something now, strangers' apps aside."""
        free = {"QUEUED", "INITIALIZING", "STANDBY", "STOPPED", "DELETING", "DELETED"}
        ours = [app for app in self.apps.values() if app.labels.get(MANAGED)]
        return [app for app in ours if self._costs(app, free)]

    def _costs(self, app: FakeApp, free: set[str]) -> bool:
        state = self.state(app)
        if state == "QUEUED":
            return True  # it may start, billed, hours later
        return state not in free and not (state == "FAILED" and app.replicas == 0)

    def add(self, region: str, spec: dict[str, Any]) -> FakeApp:
        now = self.now()
        app = FakeApp(str(uuid.uuid4()), region, spec, now, [(now, "start")])
        spec.setdefault("labels", {})
        spec["labels"] |= {"ovh/id": app.id, "ovh/type": "app"}
        self.apps[app.id] = app
        self.made += MANAGED in app.labels
        return app

    def stranger(self, region: str = "GRA") -> FakeApp:
        """Add an app of somebody else in the same project."""
        return self.add(
            region, {"name": "theirs", "image": "nginx:1", "region": region}
        )

    def shown(self, app: FakeApp) -> dict[str, Any]:
        """Return the app as API and command print it."""
        at = self.now() - self.timing.lag_s
        state = self.state(app, at=at)
        runs = state == "RUNNING"
        replicas = app.replicas if app.replicas is not None else int(runs)
        return {
            "id": app.id,
            "createdAt": date_of(app.made_at),
            "updatedAt": "2026-11-21T00:00:00Z",
            "user": "user-1",
            "spec": app.spec,
            "status": {
                "state": state,
                "url": f"{self.url}/{app.id}",
                "availableReplicas": replicas,
                "info": app.info or {"code": f"APP_{state}", "message": ""},
                "infoUrl": None,
                "monitoringUrl": None,
                "grpcAddress": None,
                "lastTransitionDate": "2026-11-21T00:00:00Z",
                "history": [
                    {"state": what.upper(), "date": "2026-11-21T00:00:00Z"}
                    for _, what in app.changes
                ],
                "dataSync": [],
                "volumes": [],
            },
        }

    def listed(self, region: str) -> list[dict[str, Any]]:
        """Return what a list shows: nothing yet of what was made a moment ago."""
        at = self.now() - self.timing.lag_s
        return [
            self.shown(app)
            for app in self.apps.values()
            if app.region == region and app.made_at <= at and self.is_there(app)
        ]

    def flavors(self, region: str) -> list[dict[str, Any]]:
        """Return what a region sells."""
        rows = [
            ("ai1-1-cpu", None, 0, 12, REGIONS),
            ("ai1-1-gpu", "Tesla-V100S", 32, 4, ("GRA", "BHS")),
            ("l4-1-gpu", "L4", 24, 4, ("GRA", "US-EAST-VA")),
            ("l40s-1-gpu", "L40S", 48, 4, ("GRA", "BHS")),
            ("a100-1-gpu", "A100", 85, 2, ("GRA",)),
            ("h100-1-gpu", "NVIDIA H100", 85, 2, ("GRA",)),
        ]
        return [
            {
                "id": name,
                "default": name == "ai1-1-gpu",
                "description": name,
                "type": "gpu" if model else "cpu",
                "max": most,
                "resourcesPerUnit": {"cpu": 12, "memory": 40 * GB},
                "gpuInformation": {
                    "gpuBrand": "NVIDIA" if model else None,
                    "gpuModel": model,
                    "gpuMemory": memory * GB or None,
                },
            }
            for name, model, memory, most, regions in rows
            if region in regions
        ]


MANAGED = "ollama-proxy-managed"
ME = {
    "name": "user-1",
    "role": "AI_TRAINING_OPERATOR",
    "quotas": {"resources": {"CPU": 12, "GPU": 4}},
    "tenant": "226611a69e109427083f154c9cc858f58",
    "tokenKind": "application",
}
