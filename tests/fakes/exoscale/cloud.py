"""What exists in the fake Exoscale, how it changes with time, and what it costs."""

import ipaddress
import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

GIB = 1 << 30
ZONES = ("at-vie-2", "de-fra-1", "ch-gva-2")


@dataclass(slots=True)
class Timing:
    """How long things take, in seconds.

    ``group_lag_s``: how long a group stays in use after its last instance.
    """

    operation_s: float = 0.0
    boot_s: float = 0.0
    address_s: float = 0.0
    list_lag_s: float = 0.0
    leave_s: float = 0.0
    group_lag_s: float = 0.0


@dataclass(slots=True)
class FakeInstance:
    """One instance; ``forced`` is a state that time does not change."""

    id: str
    zone: str
    body: dict[str, Any]
    address: str
    created_at: float
    boots_at: float
    listed_at: float
    forced: str | None = None
    gone_at: float | None = None
    stopped_at: float | None = None

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.body.get("labels", {})
        return labels


@dataclass(slots=True)
class FakeOperation:
    """One operation, done at ``ends_at``; ``refused``: the reason if it fails.

    ``message``: the text beside the reason.
    """

    id: str
    reference: str
    ends_at: float
    refused: str | None = None
    message: str = ""


def new_id() -> str:
    return str(uuid.uuid4())


@dataclass(slots=True)
class FakeExoscale:
    """One organisation in several zones.

    - ``create_fails``, ``start_fails``: a status, or how the operation fails.
    - ``full_zones``: zones whose create operations find no host and make nothing.
    - ``source_ip``: the address of calls, and of the proxy's connections to instances.
    - ``event_lag_s``: how far the log of events lags.
    - ``bought``: number of instances ever made; ``touched``: changes of strangers'
      things.
    - ``says``: the message of each failed operation.
    """

    now: Callable[[], float]
    timing: Timing = field(default_factory=Timing)
    instances: dict[str, FakeInstance] = field(default_factory=dict)
    operations: dict[str, FakeOperation] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    quotas: dict[str, tuple[int, int]] = field(default_factory=dict)
    bought: int = 0
    touched: list[str] = field(default_factory=list)
    authorized: bool | None = None
    create_fails: str | None = None
    full_zones: set[str] = field(default_factory=set)
    says: str = ""
    start_fails: str | None = None
    source_ip: str = "198.51.100.7"
    event_lag_s: float = 0.0
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(2))

    def state(self, one: FakeInstance) -> str:
        now = self.now()
        if one.gone_at is not None:
            return "destroying" if now < one.gone_at else "destroyed"
        if one.forced is not None:
            return one.forced
        if one.stopped_at is not None:
            return "stopped" if now >= one.stopped_at else "stopping"
        return "starting" if now < one.boots_at else "running"

    def exists(self, one: FakeInstance) -> bool:
        return self.state(one) != "destroyed" or one.forced == "destroyed"

    @property
    def paid(self) -> list[FakeInstance]:
        """What costs compute now, strangers' machines aside."""
        free = {"destroyed", "destroying", "stopped"}
        ours = [i for i in self.instances.values() if i.labels.get("owner")]
        return [one for one in ours if self.state(one) not in free]

    def types(self, zone: str) -> list[dict[str, Any]]:
        """The same ids in each call, other ones per zone; no names."""
        rows = [
            ("standard", "small", 2, 0, ZONES),
            ("gpua5000", "small", 12, 1, ("at-vie-2",)),
            ("gpu3", "small", 12, 1, ("de-fra-1",)),
            ("gpurtx6000pro", "small", 12, 1, ("de-fra-1",)),
        ]
        listed = []
        for family, size, cpus, gpus, zones in rows:
            one: dict[str, Any] = {
                "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{zone} {family} {size}")),
                "family": family,
                "size": size,
                "cpus": cpus,
                "memory": 16 * GIB,
                "zones": list(zones),
            }
            if gpus:
                one["gpus"] = gpus
                if self.authorized is not None:
                    one["authorized"] = self.authorized
            listed.append(one)
        return listed

    def templates(self, zone: str, visibility: str) -> list[dict[str, Any]]:
        """Several of one name, the newest last; ids differ between zones."""
        if visibility == "private":
            return []
        rows = [
            ("Linux Ubuntu 24.04 LTS 64-bit", "2026-08-01T00:00:00Z"),
            ("Linux Ubuntu 22.04 LTS 64-bit", "2026-09-01T00:00:00Z"),
            ("Linux Ubuntu 24.04 LTS 64-bit", "2026-10-01T00:00:00Z"),
        ]
        return [
            {
                "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{zone} {name} {made}")),
                "name": name,
                "created-at": made,
                "size": 10 * GIB,
                "visibility": "public",
            }
            for name, made in rows
        ]

    def add(self, zone: str, body: dict[str, Any]) -> FakeInstance:
        now, timing = self.now(), self.timing
        boots_at = now + timing.boot_s
        one = FakeInstance(
            new_id(),
            zone,
            body,
            f"127.0.7.{next(self._numbers)}",
            now,
            boots_at,
            now + timing.list_lag_s,
        )
        self.instances[one.id] = one
        self.bought += 1
        return one

    def stranger(self, zone: str = "at-vie-2") -> FakeInstance:
        """Add a machine of somebody else in the same organisation."""
        one = self.add(zone, {"name": "theirs", "disk-size": 50})
        self.bought -= 1
        return one

    def note(self, handler: str, zone: str, key: str, **more: Any) -> None:
        """Put a change into the log, which shows it some time later."""
        now = self.now()
        event = {
            "handler": handler,
            "zone": zone,
            "iam-api-key": {"key": key},
            "status": 200,
            "message": "Success",
            "request-id": new_id(),
            "source-ip": self.source_ip,
            "timestamp": datetime.fromtimestamp(now, UTC).isoformat(),
        }
        self.events.append((now + self.event_lag_s, event | more))

    def shown_events(self) -> list[dict[str, Any]]:
        """The changes of 24 hours that the log tells of by now."""
        now = self.now()
        return [one for at, one in self.events if at <= now < at + 86400.0]

    def admits(self, one: FakeInstance) -> bool:
        """Whether an instance's group lets us in where its guard listens."""
        source = ipaddress.ip_address(self.source_ip)
        return any(
            source in ipaddress.ip_network(rule["network"])
            for group in one.body.get("security-groups", [])
            for rule in self.groups.get(group["id"], {}).get("rules", [])
            if "network" in rule and rule.get("start-port") == 443
        )

    def operation(self, reference: str, refused: str | None = None) -> FakeOperation:
        ends_at = self.now() + self.timing.operation_s
        words = self.says if refused else ""
        made = FakeOperation(new_id(), reference, ends_at, refused, words)
        self.operations[made.id] = made
        return made
