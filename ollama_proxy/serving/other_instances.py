"""Repeat changes of models on the other instances of a pool.

A client's request goes to one instance. What it deletes or copies is deleted or copied
at once on the others that are ready; what it pulls they pull in the background. One
that starts later gets it by the models that are restored. Nodes pull nothing of that:
the disks are their owners'.
"""

import asyncio
from typing import Final

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.serving.pull import PullRequest
from ollama_proxy.serving.shared_pulls import Pulls
from ollama_proxy.serving.whereabouts import Whereabouts
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.request import PreparedRequest

PULLS_AT_ONCE: Final = 2
"""How many instances of a pool pull in the background at once."""

MOST_PULLS: Final = 64
"""How many such pulls run or wait; one more is left to the next launch."""

_OK: Final = 200
_LIMIT_S: Final = 60.0


class OtherInstances:
    """Has the other ready instances of a pool do what one of them did."""

    def __init__(
        self,
        pool: Pool,
        relay: UpstreamClient,
        pulls: Pulls,
        places: Whereabouts,
    ) -> None:
        self._pool = pool
        self._relay = relay
        self._pulls = pulls
        self._places = places
        self._tasks = TaskOwner()
        self._pulling: set[tuple[LaunchId, str]] = set()
        self._turns = asyncio.Semaphore(PULLS_AT_ONCE)
        self._log = structlog.get_logger()

    async def aclose(self) -> None:
        """End what still runs."""
        await self._tasks.aclose()

    async def repeat(self, to_send: PreparedRequest, done_by: Lease) -> bool:
        """Send a small request to the others; True if one of them carried it out."""
        others = self._others(done_by, model=done_by.model)
        try:
            statuses = await asyncio.gather(
                *(self._status(to_send, lease) for lease in others)
            )
        finally:
            for lease in others:
                lease.release()
        return _OK in statuses

    async def _status(self, to_send: PreparedRequest, lease: Lease) -> int | None:
        """Return what an instance answers; None if it does not."""
        try:
            async with (
                lease.until_cut(_LIMIT_S),
                await self._relay.ask(to_send, lease.upstream) as answer,
            ):
                async for _ in answer.chunks():
                    pass
                return answer.status
        except (UpstreamError, InstanceLostError, TimeoutError) as error:
            lease.check_now()
            self._log.warning(
                log.CHANGE_MISSING, launch_id=lease.launch_id, error=str(error)
            )
            return None

    def pull(
        self,
        request: PullRequest,
        to_send: PreparedRequest,
        body: bytes,
        done_by: Lease,
    ) -> None:
        """Have the others pull what one has, which alone serves it until they did.

        ``done_by``: the lease under which that one did it; theirs keep them no longer.
        """
        model = full_model_name(request.model_name)
        leases = [
            lease
            for lease in self._others(done_by)
            if not self._is_pulling(lease, model)
        ]
        if leases or done_by.node_id is not None:
            self._places.created(model, done_by.launch_id)
        if leases:
            pulling = self._pull_on(leases, request, to_send, body, model)
            self._tasks.spawn(pulling, name=f"pull {model} on {len(leases)} more")
        elif done_by.node_id is None:
            self._places.spread(model)

    def _is_pulling(self, lease: Lease, model: str) -> bool:
        """Tell whether an instance pulls a model already, or can't be asked now."""
        is_known = (lease.launch_id, model) in self._pulling
        if not is_known and len(self._pulling) < MOST_PULLS:
            return False
        lease.release()
        return True

    async def _pull_on(
        self,
        leases: list[Lease],
        request: PullRequest,
        to_send: PreparedRequest,
        body: bytes,
        model: str,
    ) -> None:
        keys = {(lease.launch_id, model) for lease in leases}
        self._pulling |= keys
        try:
            done = [await self._pull(one, request, to_send, body) for one in leases]
        finally:
            self._pulling -= keys
            for lease in leases:
                lease.release()
        if all(done):
            self._places.spread(model)

    async def _pull(
        self,
        lease: Lease,
        request: PullRequest,
        to_send: PreparedRequest,
        body: bytes,
    ) -> bool:
        """Pull on one instance; True if that succeeded."""
        async with self._turns:
            own = self._pool.duplicate(lease)
            if own is None:
                return False
            joined = self._pulls.join(
                request, to_send, body, own, _ignore, is_extra=True
            )
            if joined is None:
                return False
            pull, _ = joined
            pull.wanted_by.add(None)
            try:
                await pull.outcome()
            except InstanceLostError:
                return False
            return pull.succeeded

    def _others(self, done_by: Lease, *, model: str | None = None) -> list[Lease]:
        """Lease every ready instance but one; nothing of it is use.

        Of the nodes those that have a ``model``, if one is given.
        """
        if self._pool.ready_count < 2:  # noqa: PLR2004 - there is no other
            return []
        leases = self._pool.observe_all(yields=done_by.yields, model=model)
        for lease in leases:
            if lease.launch_id == done_by.launch_id:
                lease.release()
        return [one for one in leases if one.launch_id != done_by.launch_id]


def _ignore(_request: PullRequest) -> None:
    """Do nothing: the pull that this one repeats is remembered."""
