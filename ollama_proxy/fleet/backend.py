"""Define the contract between the proxy and a place where instances live.

A backend knows one cloud and nothing about clients, models or idleness. Waiting,
deadlines, retries across calls and readiness are the controller's job, written once for
all backends. `docs/backends.md` explains how to write a backend;
`ollama_proxy.backends.contract` is the test suite that checks it.
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
from ollama_proxy.core.nodes.labels import Labels
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
from ollama_proxy.fleet.offer_tag import OfferTag
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

    - ``phase``: a state that the backend does not recognise is `PENDING`, because the
      instance exists and is billed. `FAILED`: the instance exists and will never serve,
      so the controller stops it. `GONE`: only when the cloud states clearly that the
      instance does not exist.
    - ``upstream``: set as soon as the address is known, and always with
      `Phase.RUNNING`.
    - ``detail``: text for people, for example the cloud's name of the state.
    - ``reason``: why the instance failed or is gone, if the backend knows: ``capacity``
      (as `CapacityError`), ``image`` or ``spec`` (as `SpecError`), ``driver`` or
      ``disk`` (final if two launches in a row report it).
    - ``problem``: why the instance can't be reached at the moment. While `PENDING` it
      is shown if it lasts, or at once as an error if it ``needs_person`` (for example a
      refused token). While `RUNNING` the instance may be healthy, so failed probes are
      ignored for five minutes.
    - ``notice``: a message about a serving instance, shown in ``/status``.
    - ``report``: log of an instance that failed or is gone. Up to 8 KB are kept, with
      the secrets of the settings removed.
    - ``step``: the current step of a boot, as the instance's guard reports it.
    - ``spans``: the steps of a completed boot, reported once.
    - ``driver``: branch and version of the GPU driver that the instance installed.
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
    """Holds what the controller needs to know about a backend before it calls it.

    - ``externally_managed``: somebody else manages the server. The proxy connects at
      start-up and never stops it for idleness.
    - ``child_process``: the instances end when the proxy does.
    - ``persistent_models``: models on the disk of one instance are there on the next.
    - ``starts_empty``: every launch begins with an empty disk or with a fixed image, so
      a model that no instance had before is not there.
    - ``models_place``: name of the disk, volume, bucket or image that holds the models.
      Remembered models are valid as long as this name stays the same. None:
      ``location`` is used.
    - ``simulated``: responses come from the stand-in, not from a model.
    - ``poll_s``: seconds between two looks at a starting or stopping instance.
    - ``watch_s``: seconds between two looks at a ready instance.
    - ``renew_s``: seconds between two heartbeats to an instance that ends without them.
    - ``location``, ``instance_type``: shown in ``/status``.
    - ``alternatives``: instance types and places tried when the first ones have no
      capacity.
    - ``models_gib``: disk space for all models together. ``memory_gb``: memory for one
      model. None: the backend does not know.
    - ``gpus``: number of GPUs of an instance, the same for all its types; None:
      unknown. ``gpu_memory_gb``: memory of these GPUs together.
    - ``node_labels``: its instances are nodes, which register themselves at the hub:
      those that these labels match. None: they are not.
    - ``spec``: identifies what instances are made from besides the settings, such as a
      deployed image. When it changes, a launch that failed for good is tried again.
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
    node_labels: Labels | None = None

    @property
    def is_free(self) -> bool:
        """Tell whether its instances cost nothing: a server of others, or a child."""
        return self.externally_managed or self.child_process

    @property
    def registers_itself(self) -> bool:
        """Tell whether its instances are nodes, which come and go by themselves."""
        return self.node_labels is not None


def place_of(backend: str, traits: Traits) -> str:
    """Return the name of the place where a backend's models are."""
    where = traits.models_place or traits.location or ""
    return f"{backend} {where}".strip()[:_PLACE_LENGTH]


class Backend(Protocol):
    """Makes, shows and ends instances in one place.

    The launch id is the only handle: a backend tags what it creates with the launch id
    and with the deployment's owner id, and finds it again by these tags. So every call
    can be repeated, can be cancelled at any await, and can follow a restart of the
    proxy. The backend never touches anything without our owner tag.

    Calls raise `BackendError`s: `TransientError`, `OutcomeUnknownError`,
    `CapacityError`, `CredentialsError` or `SpecError`.
    """

    @property
    def traits(self) -> Traits:
        """Return what the controller has to know before it calls."""

    async def start(self, launch_id: LaunchId) -> None:
        """Ask for an instance and return as soon as the cloud accepts.

        Before the call, ``launch_id`` is already in the store. After it, exactly one
        instance carries ``launch_id``, however often this is called.
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

    - ``options``: the table ``[backend_options]`` of the settings file, plus
      ``models``, ``max_lifetime`` (seconds or None) and the backend's own settings
      under its name (see `settings_of`).
    - ``notes``: storage that outlives the process.
    - ``remembers``: tells whether a launch was begun from this state folder. An
      instance with our owner id and a launch that is not remembered was begun from a
      copy of the folder.
    - ``environment``: variables that the backend may pass on to a program it runs.
    - ``instance_environment``: variables that Ollama gets on the instances it makes,
      besides and before those that the backend sets.
    - ``offer``: marks what is made for this offer, where several share a cloud.
    """

    owner_id: str
    state_dir: Path
    notes: Notes
    clock: Clock
    options: Mapping[str, object] = field(default_factory=dict)
    remembers: Callable[[LaunchId], bool] = lambda _launch_id: True
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    instance_environment: Mapping[str, str] = field(default_factory=dict)
    offer: OfferTag = field(default_factory=OfferTag)

    def settings_of(self, kind: type[S]) -> S:
        """Return the backend's own settings; the defaults if there are none."""
        given = (one for one in self.options.values() if isinstance(one, kind))
        return next(given, None) or kind()


BackendFactory = Callable[[BackendContext], Backend]
"""Builds a backend; `ollama_proxy.fleet.backend_plugin` describes how it is found."""
