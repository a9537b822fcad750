"""Define the contract of a backend, as tests that its author can run.

Install ``ollama-proxy[contract]``, subclass `BackendContract` in a test file of
yours, and run pytest::

    class TestMyBackend(BackendContract):
        async def open_backend(self, owner_id: str) -> Backend:
            return MyBackend(owner_id, cloud=my_fake_cloud)

Every call of ``open_backend`` stands for a new process of the proxy: it must find what
an earlier one with the same owner id created.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Backend, Observation, Phase

LAUNCH = LaunchId("l0123456789abcdef")
OTHER = LaunchId("lfedcba9876543210")


class BackendContract:
    """Tests the promises of every backend. Subclass it and implement ``open_backend``.

    ``within_s``: limit of the wait for an instance to run or to be gone. ``survives``:
    False for a backend whose instances another process can't find.
    """

    within_s: ClassVar[float] = 30.0
    survives: ClassVar[bool] = True

    async def open_backend(self, owner_id: str) -> Backend:
        """Return the backend as a new process of the proxy would open it."""
        raise NotImplementedError

    def setup_method(self) -> None:
        """Draw an owner for each test, so that tests may run side by side."""
        self.owner_id = secrets.token_hex(8)

    @contextlib.asynccontextmanager
    async def opened(self, owner_id: str | None = None) -> AsyncIterator[Backend]:
        """Open a backend; leave nothing running that it can stop."""
        backend = await self.open_backend(owner_id or self.owner_id)
        try:
            yield backend
        finally:
            for launch_id in (LAUNCH, OTHER):
                await backend.stop(launch_id)
            await backend.aclose()

    async def until(
        self, backend: Backend, phase: Phase, launch_id: LaunchId = LAUNCH
    ) -> Observation:
        """Look until the instance is in ``phase``."""
        async with asyncio.timeout(self.within_s):
            while (seen := await backend.inspect(launch_id)).phase is not phase:  # noqa: ASYNC110
                await asyncio.sleep(min(backend.traits.poll_s, 0.05))
        return seen

    @pytest.mark.asyncio
    async def test_nothing_there_is_gone_and_no_error(self) -> None:
        async with self.opened() as backend:
            seen = await backend.inspect(LAUNCH)

            assert seen.phase is Phase.GONE

    @pytest.mark.asyncio
    async def test_a_started_instance_comes_to_run_and_has_an_upstream(self) -> None:
        async with self.opened() as backend:
            await backend.start(LAUNCH)
            seen = await self.until(backend, Phase.RUNNING)

            assert seen.upstream is not None
            assert not seen.upstream.url.endswith("/")

    @pytest.mark.asyncio
    async def test_what_was_started_is_never_gone_before_it_was_stopped(self) -> None:
        async with self.opened() as backend:
            await backend.start(LAUNCH)

            assert (await backend.inspect(LAUNCH)).phase is not Phase.GONE

    @pytest.mark.asyncio
    async def test_starting_twice_makes_one_instance(self) -> None:
        async with self.opened() as backend:
            await backend.start(LAUNCH)
            first = await self.until(backend, Phase.RUNNING)
            await backend.start(LAUNCH)
            second = await self.until(backend, Phase.RUNNING)

            assert first.upstream == second.upstream
            assert list(await backend.owned()) == [LAUNCH]

    @pytest.mark.asyncio
    async def test_a_stopped_instance_is_gone(self) -> None:
        async with self.opened() as backend:
            await backend.start(LAUNCH)
            await self.until(backend, Phase.RUNNING)
            await backend.stop(LAUNCH)
            await self.until(backend, Phase.GONE)

            assert LAUNCH not in await backend.owned()

    @pytest.mark.asyncio
    async def test_stopping_what_is_gone_succeeds(self) -> None:
        async with self.opened() as backend:
            await backend.stop(LAUNCH)
            await backend.stop(LAUNCH)

            assert (await backend.inspect(LAUNCH)).phase is Phase.GONE

    @pytest.mark.asyncio
    async def test_stopping_one_launch_leaves_the_other(self) -> None:
        async with self.opened() as backend:
            await backend.start(LAUNCH)
            await backend.start(OTHER)
            await self.until(backend, Phase.RUNNING)
            await self.until(backend, Phase.RUNNING, OTHER)
            await backend.stop(LAUNCH)
            await self.until(backend, Phase.GONE)

            assert set(await backend.owned()) == {OTHER}

    @pytest.mark.asyncio
    async def test_a_new_process_finds_what_the_old_one_started(self) -> None:
        if not self.survives:
            pytest.skip("its instances can't be found by another process")
        async with self.opened() as old:
            await old.start(LAUNCH)
            before = await self.until(old, Phase.RUNNING)
            async with self.opened() as new:
                await new.start(LAUNCH)
                after = await self.until(new, Phase.RUNNING)

                assert after.upstream == before.upstream
                assert set(await new.owned()) == {LAUNCH}
                await new.stop(LAUNCH)
                await self.until(new, Phase.GONE)

    @pytest.mark.asyncio
    async def test_another_owners_instances_are_neither_seen_nor_stopped(self) -> None:
        async with self.opened() as ours, self.opened(secrets.token_hex(8)) as theirs:
            await ours.start(LAUNCH)
            await self.until(ours, Phase.RUNNING)

            assert not await theirs.owned()
            await theirs.stop(LAUNCH)
            assert (await ours.inspect(LAUNCH)).phase is Phase.RUNNING
