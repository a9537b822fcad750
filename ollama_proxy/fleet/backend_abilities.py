"""Define optional abilities of a backend; each is a protocol for `isinstance`.

A backend has an ability if it has the protocol's methods. Plug-ins import all of these
from `ollama_proxy.backend`.
"""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ollama_proxy.core.lifecycle.record import LaunchId


@dataclass(frozen=True, slots=True)
class Finding:
    """Holds one line of ``ollama-proxy check``: what was looked at, and the verdict.

    ``warns``: it may work all the same, so the check does not fail.
    """

    subject: str
    ok: bool
    detail: str
    warns: bool = False


@runtime_checkable
class SupportsCheck(Protocol):
    """Can examine its own settings."""

    async def check(self) -> list[Finding]:
        """Examine settings, key and quota without creating what costs."""


@runtime_checkable
class SupportsHeartbeat(Protocol):
    """Has instances that end by themselves when the proxy falls silent."""

    async def renew(self, launch_id: LaunchId, *, serves: bool) -> None:
        """Tell the instance that it is still wanted; called every ``traits.renew_s``.

        ``serves``: the launch is ready. The first call with it follows at once.
        """


@runtime_checkable
class SupportsTidy(Protocol):
    """Leaves things behind that cost nothing: firewall rules, say."""

    async def tidy(self) -> None:
        """Remove what no instance needs; leave what is in use.

        Raises `ConflictError` for what is in use now and will be free without any
        action.
        """


@runtime_checkable
class SupportsReport(Protocol):
    """Can report on an instance whose launch is given up."""

    async def report(self, launch_id: LaunchId) -> str:
        """Return a report on a launch that is given up: logs, events, console output.

        At most 40 lines; empty if nothing could be fetched. The controller calls this
        once, before it stops the launch, with a limit of a few seconds. It changes
        nothing.
        """


@dataclass(frozen=True, slots=True)
class Prices:
    """Holds the prices of instances per hour, in the account's currency; None: unknown.

    ``per_hour``: a running instance. ``parked``: number of stopped instances that are
    kept; ``parked_per_hour``: price of these together.
    """

    per_hour: float | None = None
    parked: int = 0
    parked_per_hour: float | None = None


@runtime_checkable
class SupportsPrices(Protocol):
    """Knows what its instances cost."""

    @property
    def prices(self) -> Prices:
        """Return the prices, as far as they are configured or published."""


@runtime_checkable
class SupportsExpiry(Protocol):
    """Marks instances publicly with the date until which they are wanted."""

    async def sweep_expired(self, *, dry_run: bool) -> list[str]:
        """Delete what this product made under any owner, once its lease has expired.

        Returns a description of each deleted thing. Runs with a key of its own on a
        machine of its own: it needs no state of the proxy.
        """


@dataclass(frozen=True, slots=True)
class Belonging:
    """Describes a thing in a cloud that carries this product's label, of any owner.

    - ``name``: a description with its place.
    - ``launch_id``: of an instance; None for things that outlive launches, such as a
      volume or a security group.
    - ``runs``: an instance that runs or may start to.
    - ``made_at``, ``lease_end``: epoch seconds, None if unknown. A living proxy keeps
      renewing the lease of its running instance.
    - ``per_hour``: price; 0 if it is free, None if unknown.
    """

    id: str
    name: str
    owner_id: str
    state: str
    launch_id: LaunchId | None = None
    runs: bool = False
    made_at: float | None = None
    lease_end: float | None = None
    per_hour: float | None = None


@runtime_checkable
class SupportsOwners(Protocol):
    """Sees what other deployments of this product made in the same place."""

    async def belongings(self) -> list[Belonging]:
        """Return all that carries the product's label, ours included."""

    async def discard(self, one: Belonging) -> bool:
        """Go one step towards the deletion of a thing, if its owner is still the same.

        Returns True once it is gone, by a look-up of its own id: missing from a list is
        not enough. If it has another owner by now, or none, leave it alone and return
        True.
        """

    async def estrange(self, one: Belonging) -> None:
        """Mark an instance so that it is not started again as it is: its keys are lost.

        Called when an instance is adopted with its owner id. Does nothing for things
        that are not instances.
        """


@runtime_checkable
class SupportsModelListing(Protocol):
    """Can list its models while nothing runs.

    It is called for each request of a client, so it has to be quick.
    """

    def tags(self) -> bytes | None:
        """Return the body of ``/api/tags``, the same object while nothing changes.

        None if the list is not known at the moment.
        """

    def show(self, full_name: str) -> bytes | None:
        """Return the body of ``/api/show`` of a model; None if it is unknown.

        ``full_name`` is in lower case, with its tag.
        """


@runtime_checkable
class SupportsRelease(Protocol):
    """Keeps instances, stopped, for the next launch."""

    async def release(self, *, dry_run: bool) -> list[str]:
        """Delete them before their time is over; return what they are, in words."""


@runtime_checkable
class EndsAlone(Protocol):
    """Can be asked to `start` while no proxy runs."""

    @property
    def unattended_s(self) -> float | None:
        """Return how many seconds at most an instance runs without a renewal.

        Counted from when it runs until it costs nothing. None: it would never end by
        itself.
        """


@runtime_checkable
class SupportsIdleCosts(Protocol):
    """Keeps things that cost money while nothing runs."""

    async def kept(self) -> list[str]:
        """Return each of them, in words, with its price."""


@runtime_checkable
class SupportsDeploy(Protocol):
    """Has something that a person sets up once.

    Both methods yield their steps as text, and raise `BackendError`s.
    """

    def deploy(self, image: str) -> AsyncIterator[str]:
        """Create what launches will start; afterwards nothing costs anything.

        Everything that can be checked is checked before the first step is yielded: a
        running proxy stops its instance after that step, unless the step is
        `Unchanged`.
        """

    def remove(self) -> AsyncIterator[str]:
        """Delete everything of this deployment."""

    async def deployed(self) -> list[str]:
        """Return what there is of this deployment, in words."""


@runtime_checkable
class SupportsReplacement(Protocol):
    """May find something of its name at `deploy` that is not its own."""

    def deploy_over(self, image: str, names: Collection[str]) -> AsyncIterator[str]:
        """Deploy as `SupportsDeploy.deploy` does; delete the things in ``names`` first.

        Raises `ConsentError` if something else would have to be deleted.
        """
