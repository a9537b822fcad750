"""Define the contract between the proxy and a place where instances live.

A backend knows one cloud and nothing of clients, models or idleness. Waiting,
deadlines, retries across calls and readiness belong to the controller, once,
and not to each backend. `docs/backends.md` tells how to write one;
`ollama_proxy.backends.contract` is the suite that checks it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.fields import BackendSettings
from ollama_proxy.base.former_names import with_former_fields
from ollama_proxy.core.lifecycle.boot_stages import StageSpan
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend_abilities import (
    Belonging,
    EndsAlone,
    Finding,
    Prices,
    SupportsCheck,
    SupportsDeploy,
    SupportsExpiry,
    SupportsHeartbeat,
    SupportsIdleCosts,
    SupportsModelListing,
    SupportsOwners,
    SupportsPrices,
    SupportsRelease,
    SupportsReplacement,
    SupportsReport,
    SupportsTidy,
)
from ollama_proxy.upstream.endpoint import Upstream

__all__ = [
    "Backend",
    "BackendContext",
    "BackendFactory",
    "Belonging",
    "EndsAlone",
    "Finding",
    "Notes",
    "Observation",
    "Phase",
    "Prices",
    "S",
    "SupportsCheck",
    "SupportsDeploy",
    "SupportsExpiry",
    "SupportsHeartbeat",
    "SupportsIdleCosts",
    "SupportsModelListing",
    "SupportsOwners",
    "SupportsPrices",
    "SupportsRelease",
    "SupportsReplacement",
    "SupportsReport",
    "SupportsTidy",
    "Traits",
    "Unchanged",
    "Upstream",
    "place_of",
]

S = TypeVar("S", bound=BackendSettings)

_PLACE_LENGTH = 500


class Phase(StrEnum):
    """Names what one look at an instance showed."""

    PENDING = "pending"
    RUNNING = "running"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Observation:
    """Holds the answer of `Backend.inspect`.

    ``upstream`` is there as soon as the address is known, and always with
    `Phase.RUNNING`. A state that the backend has never heard of is `PENDING`:
    it exists and is paid for. `FAILED` exists as well, and will never serve: it is
    stopped. `GONE` is only ever the cloud's own clear word.
    ``detail`` is for people: the cloud's name of the state, say. ``reason`` is one of
    a few words on why it has failed, or is gone, if the backend knows: ``capacity``,
    as `CapacityError`; ``image`` or ``spec``, as `SpecError`; ``driver`` or ``disk``,
    which stay if they come twice in a row. ``problem`` is why it can't be spoken to
    yet, which is told if it stays so, and at once as an error if it ``needs_person``:
    a token that is refused, say; of one that is `RUNNING`, why it can't be for the
    moment, though it may be well: its silence is forgiven for five minutes.
    ``notice`` is what is to be known of one that serves, told in ``/status``.
    ``report`` is what there is to read of one that has failed, or is gone: a log, say,
    of which up to 8 KB are kept, without secrets of the settings. ``step`` is what a
    boot is at, in a word of its installation, if its instance tells; ``spans``
    are the steps of a boot that is over, told once; ``driver`` the branch and version
    of the GPU's driver that it installed, if its instance tells.
    """

    phase: Phase
    upstream: Upstream | None = None
    detail: str = ""
    reason: str = ""
    problem: str = ""
    report: str = ""
    step: str = ""
    needs_person: bool = False
    notice: str = ""
    spans: tuple[StageSpan, ...] = ()
    driver: str = ""


@with_former_fields(
    always_on="externally_managed",
    stops_with_proxy="child_process",
    keeps_models="persistent_models",
)
@dataclass(frozen=True, slots=True)
class Traits:
    """Holds what the controller has to know of a backend before it calls it.

    ``externally_managed``: the server is managed by somebody else: it is connected to
    at start-up, and never stopped for idleness. ``child_process``: the instances end
    when the proxy does. ``persistent_models``: what is on the disk of one instance is
    there on the next. ``starts_empty``: every launch begins with an empty disk, or an
    image that is always the same, so a model that no instance ever had is not there.
    ``models_place`` names that disk, volume, bucket or image: what is remembered of the
    models holds as long as it stays the same; None: ``location`` does.
    ``simulated``: what answers is the stand-in, and no model.
    ``poll_s``: the pause between two looks at an instance that is coming or going;
    ``watch_s``: at one that is ready; ``renew_s``: between two words to an instance
    that ends without them. ``location`` and
    ``instance_type`` are shown in ``/status``; ``alternatives`` are the types and
    places that are tried where these have no room; ``models_gib`` is the room for
    all models on disk, ``memory_gb`` the memory for one; None: not the backend's
    affair. ``gpus``: how many an instance has, whichever of the types it is; None: not
    known; ``gpu_memory_gb``: what these have together.
    ``spec`` names what instances are made from besides the settings, such as an image
    that was deployed: when it changes, what failed for good is tried again.
    """

    externally_managed: bool = False
    child_process: bool = False
    persistent_models: bool = False
    starts_empty: bool = False
    models_place: str | None = None
    simulated: bool = False
    poll_s: float = 5.0
    watch_s: float = 30.0
    renew_s: float = 60.0
    location: str | None = None
    instance_type: str | None = None
    alternatives: tuple[str, ...] = ()
    models_gib: int | None = None
    memory_gb: float | None = None
    gpus: int | None = None
    gpu_memory_gb: float | None = None
    spec: str = ""


def place_of(backend: str, traits: Traits) -> str:
    """Return the name of the place where a backend's models are."""
    where = traits.models_place or traits.location or ""
    return f"{backend} {where}".strip()[:_PLACE_LENGTH]


class Backend(Protocol):
    """Makes, shows and ends instances in one place.

    The launch id is the only handle: a backend tags what it creates with it,
    and with the deployment's owner id, and finds it again by these tags. So
    every call may be repeated, may be cut short at any await, and may follow a
    restart of the proxy. Nothing without our owner tag is ever touched.

    Calls raise `BackendError`s: `TransientError`, `OutcomeUnknownError`,
    `CapacityError`, `CredentialsError` or `SpecError`.
    """

    @property
    def traits(self) -> Traits:
        """Return what the controller has to know before it calls."""

    async def start(self, launch_id: LaunchId) -> None:
        """Ask for an instance and return as soon as the cloud accepts.

        Before: ``launch_id`` is already in the store.
        After: exactly one instance carries ``launch_id``, however often asked.
        """

    async def inspect(self, launch_id: LaunchId) -> Observation:
        """Look once, without waiting. A missing instance is `GONE`, not an error."""

    async def stop(self, launch_id: LaunchId) -> None:
        """End what costs money. Stopping an instance that does not exist succeeds."""

    async def owned(self) -> Collection[LaunchId]:
        """Name every instance that carries our tag, remembered or not."""

    async def aclose(self) -> None:
        """Close sockets and files. Instances stay as they are."""


class Unchanged(str):
    """Says, as the only step of an order, that nothing has to be changed."""

    __slots__ = ()


class Notes(Protocol):
    """Stores what a backend has to know of a launch after a crash: on disk at once."""

    def notes(self) -> dict[LaunchId, bytes]:
        """Return every note."""

    def put_note(self, launch_id: LaunchId, note: bytes) -> None:
        """Write a note. Raises `StoreError` if it is not on disk afterwards."""

    def drop_note(self, launch_id: LaunchId) -> None:
        """Forget a note."""


@dataclass(frozen=True, slots=True)
class BackendContext:
    """Holds what a backend is built from.

    ``options`` are the table ``[backend_options]`` of the settings file, and besides
    it ``models``, ``max_lifetime`` (seconds or None) and the backend's own settings
    under its name: see `settings_of`. ``notes`` outlive the process.
    ``remembers`` tells whether this state folder ever began a launch: one that it did
    not, and that carries its owner id, was begun by a copy of the folder.
    ``environment`` is what a program that the backend runs may be given parts of.
    """

    owner_id: str
    state_dir: Path
    notes: Notes
    clock: Clock
    options: Mapping[str, object] = field(default_factory=dict)
    remembers: Callable[[LaunchId], bool] = lambda _launch_id: True
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def settings_of(self, kind: type[S]) -> S:
        """Return the backend's own settings; the defaults if there are none."""
        given = (one for one in self.options.values() if isinstance(one, kind))
        return next(given, None) or kind()


BackendFactory = Callable[[BackendContext], Backend]
"""What builds a backend; `ollama_proxy.fleet.backend_plugin` has all of the door."""
