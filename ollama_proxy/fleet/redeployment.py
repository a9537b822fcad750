"""Deploy or remove the image that launches start, while the proxy goes on serving.

The running instance is stopped first, as by `ollama-proxy stop`. Meanwhile wakes are
held back.
"""

import asyncio
import contextlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Sequence,
)

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import ConflictError, StartupError, TransientError
from ollama_proxy.core.lifecycle.record import AT_REST, Record
from ollama_proxy.fleet.backend import (
    Backend,
    SupportsDeploy,
    SupportsReplacement,
    Unchanged,
)
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.reports import without

_LIMIT_S = 900.0
_POLL_S = 0.05

Tell = Callable[[str], Awaitable[None]]


@contextlib.asynccontextmanager
async def closing_steps(steps: AsyncIterator[str]) -> AsyncIterator[None]:
    """Close the steps at once, so that a cancelled order stops its app now."""
    try:
        yield
    finally:
        if isinstance(steps, AsyncGenerator):
            await steps.aclose()


def order_steps(
    name: str, backend: Backend, image: str | None, replaced: Collection[str] = ()
) -> AsyncIterator[str]:
    """Return the steps that deploy ``image``, or that remove everything if it is None.

    ``replaced``: names of things without our tag that may be deleted. Raises
    `StartupError` if the backend ``name`` does not support this.
    """
    if not isinstance(backend, SupportsDeploy):
        raise StartupError(f"the backend {name!r} has nothing to be deployed")
    if image is None:
        return backend.remove()
    if not replaced:
        return backend.deploy(image)
    if not isinstance(backend, SupportsReplacement):
        raise StartupError(
            f"--replace: the backend {name!r} replaces nothing of others"
        )
    return backend.deploy_over(image, replaced)


class Redeployment:
    """Carries out one order at a time on the first backend of a running proxy.

    Every pool with instances of that backend is held back and stopped meanwhile.
    ``redeployed``: called when the backend has changed how it makes instances and no
    former instance is left. ``limit_s``: how long an instance may take to be gone once
    its streams have ended.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        *,
        redeployed: Callable[[], None],
        limit_s: float = _LIMIT_S,
    ) -> None:
        self._redeployed = redeployed
        self._offer = next(_offers_of(pools))
        self._backend = self._offer.backend
        own = {pool: self._of(pool) for pool in pools}
        self._pools = [pool for pool, controllers in own.items() if controllers]
        self._controllers = [one for controllers in own.values() for one in controllers]
        self._limit_s = limit_s
        self._is_busy = False
        self._traits = self._backend.traits
        for controller in self._controllers:
            controller.subscribe(self._on_transition)

    def _of(self, pool: Pool) -> list[Controller]:
        """Return the controllers of a pool that make instances of the backend."""
        return [c for c in pool.controllers if c.offer.backend is self._backend]

    @property
    def backend_name(self) -> str:
        """Return the name of the backend that an order is carried out on."""
        return self._offer.name

    async def run(
        self, image: str | None, tell: Tell, replaced: Collection[str] = ()
    ) -> None:
        """Carry out the steps of `order_steps` and report each.

        Raises `StartupError` if the backend has nothing to deploy, `ConflictError`
        while another order is carried out, and the backend's own errors.
        """
        steps = order_steps(self.backend_name, self._backend, image, replaced)
        if self._is_busy:
            raise ConflictError("the proxy deploys or deletes already; try again later")
        self._is_busy = True
        try:
            with contextlib.ExitStack() as held:
                for pool in self._pools:
                    held.enter_context(pool.held_back())
                async with closing_steps(steps):
                    await self._carry_out(steps, tell, checks=image is not None)
        finally:
            self._is_busy = False
            self._take_traits()

    def _on_transition(self, _before: Record, after: Record) -> None:
        """Take the traits once the instance to stop is gone, after the order ended."""
        if after.state in AT_REST:
            asyncio.get_running_loop().call_soon(self._take_traits)

    def _take_traits(self) -> None:
        traits = self._backend.traits
        is_at_rest = all(c.record.state in AT_REST for c in self._controllers)
        if traits is not self._traits and is_at_rest and not self._is_busy:
            self._traits = traits
            for controller in self._controllers:
                controller.take_traits()
            self._redeployed()

    async def _carry_out(
        self, steps: AsyncIterator[str], tell: Tell, *, checks: bool
    ) -> None:
        """Stop the instance and go through the steps.

        If the order ``checks`` its image first, the first step is taken before the
        instance is stopped, so a wrong image does not end a serving instance. A
        starting instance may not be visible to its backend yet, so it is stopped before
        the steps look for anything.
        """
        if checks and any(pool.is_ready for pool in self._pools):
            first = await anext(steps, None)
            if first is not None:
                await self._note(first, tell)
            if isinstance(first, Unchanged):
                return
        await self._stop(tell)
        async for step in steps:
            await self._note(step, tell)

    async def _note(self, step: str, tell: Tell) -> None:
        step = without(self._offer.secrets, step)
        structlog.get_logger().info(log.DEPLOYMENT_STEP, step=step)
        await tell(step)

    async def _stop(self, tell: Tell) -> None:
        """Have the owners of the instances stop them, and wait until they are gone."""
        running = self._not_at_rest()
        for controller in running:
            if (launch_id := controller.record.launch_id) is not None:
                told = f"the proxy stops its instance, of launch {launch_id}"
                await self._note(told, tell)
        if not running:
            return
        for pool in self._pools:
            pool.stop()
        limit_s = self._limit_s + running[0].policy.drain_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                while self._not_at_rest():  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            record = (self._not_at_rest() or running)[0].record
            said = record.stop_error or "no answer"
            raise TransientError(
                f"the instance of launch {record.launch_id} is still there after"
                f" {limit_s:.0f} s ({said}) and may cost money; the proxy goes on"
                " stopping it, so give the order again later"
            ) from None

    def _not_at_rest(self) -> list[Controller]:
        """Return the controllers with an instance, or with one about to be."""
        return [
            one
            for one in self._controllers
            if one.is_reserving or one.record.state not in AT_REST
        ]


def _offers_of(pools: Sequence[Pool]) -> Iterator[Offer]:
    """Yield the offers whose instances may be ours, then those of nodes."""
    for pool in pools:
        for controller in pool.controllers:
            yield controller.offer
    for pool in pools:
        for house in pool.houses:
            yield house.offer
