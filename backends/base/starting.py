"""Start a launch: on its own instance, on one that stands by, or on a new one.

Most clouds have no idempotency key for the create call. So the attempt is recorded
before the call. After a lost answer the instance is looked for by its tags, until the
call can't be executed any more (`SETTLE_S`).
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from ollama_proxy.backends.base.cloud import R
from ollama_proxy.backends.base.managed_core import ManagedCore, O
from ollama_proxy.backends.base.placement import Placement
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningRecord,
    unsent,
)
from ollama_proxy.base.errors import (
    OutcomeUnknownError,
    TransientError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Belonging

_LOOKS = 2
"""How many looks prove that a start has no instance yet: lists may lag."""


@dataclass(frozen=True, slots=True)
class Creation:
    """Holds the one call that makes an instance, and returns the instance's id.

    ``identity``: the launch whose token its guard will expect, if it has a guard token.
    """

    call: Callable[[], Awaitable[str]]
    identity: str | None = None


class Starting(ManagedCore[R, O]):
    """`start` of a managed backend."""

    @abstractmethod
    def _placements(self) -> list[Placement]:
        """Return where an instance may be made, the first choice first."""

    async def _creation(self, launch_id: LaunchId, placement: Placement) -> Creation:
        """Return the call that makes an instance, after looking up its arguments.

        Not abstract: a cloud that replaces `_make` or `_start_another` has none.
        """
        raise NotImplementedError

    async def _all_belongings(self) -> list[Belonging]:
        """Return what any deployment of this product has here, to see twins by.

        Not abstract: a cloud that replaces `_start_another` looks for them there.
        """
        raise NotImplementedError

    async def start(self, launch_id: LaunchId) -> None:
        """Have an instance run for a launch: its own, a stopped or a new one."""
        self._told_to_stop.discard(launch_id)
        record = self._journal.get(launch_id)
        if (
            record is not None
            and record.instance_id is not None
            and await self._resume(launch_id, record)
        ):
            return
        await self._start_another(launch_id)

    async def _start_another(self, launch_id: LaunchId) -> None:
        """Start an instance that has a launch's tags, or stands by, or is new."""
        record = self._journal.get(launch_id)
        await self._check_start()
        if record is None:
            self._journal.put(launch_id, unsent(self._placements()[0]))
        for _ in self._looks_before_creation(launch_id):
            sent_to = self._sent_to(launch_id)
            found = await self._inventory.of_launch(launch_id, surely=sent_to)
            adopted = await self._adopt(launch_id, found)
            if adopted is not None and await self._resume_with(launch_id, *adopted):
                return
        if record is not None and self._may_turn_up(launch_id, record):
            raise OutcomeUnknownError(
                f"the answer to the making of an {self.noun} was lost; it is looked for"
                f" by its {self.tags_noun}"
            )
        self._refuse_twins(await self._all_belongings())
        if not await self._take_standby(launch_id):
            await self._provision(launch_id)

    async def _check_start(self) -> None:
        """Raise an error if a start can't succeed; called before any look."""

    def _looks_before_creation(self, launch_id: LaunchId) -> Iterator[None]:
        """Yield for each look for an instance: two, because lists lag.

        They happen once, even if the start is interrupted afterwards: before a create
        call is sent, no instance can appear.
        """
        record = self._journal.get(launch_id)
        if record is None or not record.create_not_sent:
            self._looks.pop(launch_id, None)
        while self._looks.get(launch_id, 0) < _LOOKS:
            yield
            self._looks[launch_id] = self._looks.get(launch_id, 0) + 1

    async def _resume(self, launch_id: LaunchId, record: ProvisioningRecord) -> bool:
        """Have the instance that a launch has run; False once it has none any more."""
        resource = await self._look(launch_id, record)
        if resource is None and self._is_not_shown_yet(record):
            raise TransientError(f"the {self.noun} of this launch is not shown yet")
        if resource is None or resource.is_leaving:
            self._journal.put(launch_id, unsent(record.placement))
            return False
        return await self._resume_with(launch_id, record, resource)

    async def _resume_with(
        self, launch_id: LaunchId, record: ProvisioningRecord, resource: R
    ) -> bool:
        """Have an instance that is there run for a launch; False if it won't."""
        await self._run(launch_id, self._location_of(record), resource)
        return True

    async def _run(self, launch_id: LaunchId, location: str, resource: R) -> None:
        """Start an instance for a launch, unless it runs."""
        if resource.launch != launch_id:
            tags = {"launch": str(launch_id)}
            await self._cloud.tag(location, resource, tags)
        if not resource.is_stopped:
            return
        self._standby_count = max(0, self._standby_count - 1)
        self._journal.update(launch_id, started_at=self._clock.now(), seen_live=False)
        await self._renew_lease(location, resource)
        await self._cloud.start(location, resource)

    async def _take_standby(self, launch_id: LaunchId) -> bool:
        """Take an instance that stands by; False if there is none that fits."""
        return False

    async def _provision(self, launch_id: LaunchId) -> None:
        """Make an instance in the first placement that takes it."""
        make = partial(self._make, launch_id)
        await self._room.first_that_takes(
            self._placements(), make, passed_over=self.passed_over
        )

    async def _make(self, launch_id: LaunchId, placement: Placement) -> None:
        """Send the one call that makes an instance, noted before and after."""
        creation = await self._creation(launch_id, placement)
        sent = replace(
            unsent(placement),
            attempted_at=self._clock.now(),
            identity=creation.identity,
        )
        made = await self._journal.create(launch_id, sent, creation.call)
        self._journal.update(launch_id, instance_id=made)
