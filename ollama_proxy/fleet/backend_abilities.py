"""Define what a backend may do besides: each is a protocol `isinstance` asks for.

A backend has an ability by having its methods. Plug-ins import all of these from
`ollama_proxy.backend`.
"""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ollama_proxy.core.lifecycle.record import LaunchId


@dataclass(frozen=True, slots=True)
class Finding:
    """Holds one line of ``ollama-proxy check``: what was looked at, and the verdict.

    ``warns``: it may work all the same, so it does not count as wrong.
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
        """Say that the instance is wanted still; asked every ``traits.renew_s``.

        ``serves``: its launch became ready, which is told at once.
        """


@runtime_checkable
class SupportsTidy(Protocol):
    """Leaves things behind that cost nothing: firewall rules, say."""

    async def tidy(self) -> None:
        """Remove what no instance needs; what is in use stays.

        Raises `ConflictError` for what will be free by itself.
        """


@runtime_checkable
class SupportsReport(Protocol):
    """Can report on an instance whose launch is given up."""

    async def report(self, launch_id: LaunchId) -> str:
        """Return a report on a launch that is given up: logs, events, console output.

        At most 40 lines; empty if nothing could be fetched. It is asked before the
        launch is stopped, once, for a few seconds, and changes nothing.
        """


@dataclass(frozen=True, slots=True)
class Prices:
    """Holds the prices of instances per hour, in the account's currency; None: unknown.

    ``per_hour``: one that runs. ``parked``: how many are stopped and kept;
    ``parked_per_hour``: what these cost together.
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
    """Marks, for anybody to see, until when an instance is wanted."""

    async def sweep_expired(self, *, dry_run: bool) -> list[str]:
        """Delete what this product made under any owner, once its lease has expired.

        Returns what it was, in words. For a key and a machine of its own: it needs
        no state of the proxy.
        """


@dataclass(frozen=True, slots=True)
class Belonging:
    """Describes a thing in a cloud that carries this product's label, of any owner.

    ``name`` is in words, with its place. ``launch_id``: that of an instance; None for
    what outlives launches, a volume or a security group. ``runs``: it is an instance
    that runs, or may come to. ``made_at`` and ``lease_end`` are dates in epoch seconds,
    None if unknown; the lease of what runs is renewed by its proxy as long as it lives.
    ``per_hour`` is what it costs, 0 for nothing, None if unknown.
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
        """Go one step towards its deletion, if it is that owner's still.

        Whether it is gone: by its own id, never for not being in a list. What is
        another owner's by now, or has no owner, counts as gone and is left alone.
        """

    async def estrange(self, one: Belonging) -> None:
        """Have an instance never be started again as it is: its keys are lost.

        For what is adopted with its owner id; what is no instance stays as it is.
        """


@runtime_checkable
class SupportsModelListing(Protocol):
    """Can list its models while nothing runs.

    It is asked at each question of a client, so it has to be quick.
    """

    def tags(self) -> bytes | None:
        """Return the body of ``/api/tags``, the same object while nothing changes.

        None if it can't be told now.
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
        """Return for how many seconds at most an instance runs without a renewal.

        From when it runs to when it costs nothing; None: nothing would end it.
        """


@runtime_checkable
class SupportsIdleCosts(Protocol):
    """Keeps things that cost money while nothing runs."""

    async def kept(self) -> list[str]:
        """Return each of them, in words, with its price."""


@runtime_checkable
class SupportsDeploy(Protocol):
    """Has something that a person sets up once.

    Both orders tell their steps, and raise `BackendError`s.
    """

    def deploy(self, image: str) -> AsyncIterator[str]:
        """Make what launches only start; nothing costs anything afterwards.

        What can be checked is checked before the first step is told: a running proxy
        stops its instance after that one, unless it is `Unchanged`.
        """

    def remove(self) -> AsyncIterator[str]:
        """Delete everything of this deployment."""

    async def deployed(self) -> list[str]:
        """Return what there is of this deployment, in words."""


@runtime_checkable
class SupportsReplacement(Protocol):
    """May find something of its name at `deploy` that is not its own."""

    def deploy_over(self, image: str, names: Collection[str]) -> AsyncIterator[str]:
        """Deploy as `SupportsDeploy` has it, and delete before what is named.

        Raises `ConsentError` for what would have to be, and is not.
        """
