"""Define what the author of a cloud writes: single API calls, and what the cloud shows.

No state, no waiting, no policy: `ManagedBackend` decides what is called when and how
often, and which answers are believed.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeVar

from ollama_proxy.backends.base.ownership_tags import Tagged
from ollama_proxy.fleet.backend import Upstream


class Resource(Tagged):
    """Describes one instance as a cloud shows it, for a struct that inherits from it.

    ``id``: the cloud's unique id. ``created_at``: sorts by age. ``state``: the cloud's
    word for it.
    """

    __slots__ = ()
    created_at: str

    @property
    @abstractmethod
    def state_in_words(self) -> str:
        """Return its state, for a person."""

    @property
    @abstractmethod
    def is_leaving(self) -> bool:
        """Tell whether it does not have to be deleted any more."""

    @property
    @abstractmethod
    def is_stopping(self) -> bool:
        """Tell whether it will be stopped: a stop was asked for already."""

    @property
    @abstractmethod
    def is_stopped(self) -> bool:
        """Tell whether it runs nothing, costs no compute, and can be started again."""


R = TypeVar("R", bound=Resource)


class Assessment(Enum):
    """Names the assessment of an instance."""

    GONE = auto()
    PENDING = auto()
    FAILED = auto()
    NO_CAPACITY = auto()
    MAYBE_READY = auto()


@dataclass(frozen=True, slots=True)
class StateContext:
    """Holds the circumstances that matter besides the state.

    - ``standby``: a stopped instance is the normal end of a launch, and is not deleted.
    - ``told_to_stop``: we stopped it.
    - ``start_not_visible_yet``: it was started so recently that the cloud may still
      show it as stopped.
    - ``waited_s``: seconds since it was asked to run.
    - ``served``: it was ready once.
    """

    standby: bool
    told_to_stop: bool
    start_not_visible_yet: bool
    waited_s: float = 0.0
    served: bool = False


class Cloud(Protocol[R]):
    """Calls the API of one account of a provider. Failures are `BackendError`s.

    A ``location`` is a zone or region: a part of the cloud with a list of its own.
    """

    def locations(self) -> list[str]:
        """Return every location in which there may be something of ours."""

    async def list(self, location: str) -> list[R]:
        """Return all that is visible in a location, ours or not."""

    async def get(self, location: str, resource_id: str) -> R:
        """Return one; `NotFoundError` only on the provider's clear word."""

    async def start(self, location: str, resource: R) -> None:
        """Start one that is stopped."""

    async def stop(self, location: str, resource: R) -> None:
        """End one's compute; its disk stays."""

    async def delete(self, location: str, resource: R) -> None:
        """Delete one, whatever its state."""

    async def tag(self, location: str, resource: R, tags: Mapping[str, str]) -> None:
        """Change some of its tags, named as in `OwnershipTags`; the others stay."""

    def assess(self, resource: R, context: StateContext) -> tuple[Assessment, str]:
        """Return what to think of one, and why, in words. Pure."""

    def endpoint(
        self, location: str, resource: R, identity: str | None
    ) -> Upstream | None:
        """Return the address and link of its guard; None while it is unknown.

        ``identity``: the launch whose token the guard expects, if it has one.
        """

    async def aclose(self) -> None:
        """Close connections; instances stay as they are."""
