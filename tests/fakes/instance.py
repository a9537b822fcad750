"""A backend whose instances are simulators in this process, on real sockets."""

import asyncio
from collections.abc import Collection

from aiohttp import web

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Observation, Phase, Traits, Upstream
from ollama_proxy.simulator.server import (
    SIMULATOR,
    Manners,
    Simulator,
    build_simulator,
)


class InProcessBackend:
    """Starts a simulator per launch; ``simulator``: the running one.

    ``boot_s`` may be changed during a boot; ``start_error`` ends its boot.
    """

    def __init__(
        self,
        manners: Manners | None = None,
        *,
        models: Collection[str] = ("tiny",),
        boot_s: float = 0.0,
        is_gateway: bool = False,
    ) -> None:
        self.manners = manners or Manners()
        self.traits = Traits(child_process=True, poll_s=0.02, watch_s=0.2)
        self.boot_s = boot_s
        self.start_error: Exception | None = None
        self._is_gateway = is_gateway
        self.launches = 0
        self._models = list(models)
        self._runners: dict[LaunchId, web.AppRunner] = {}
        self._apps: dict[LaunchId, web.Application] = {}
        self._ports: dict[LaunchId, int] = {}

    @property
    def running(self) -> int:
        return len(self._runners)

    @property
    def simulator(self) -> Simulator:
        return next(iter(self._apps.values()))[SIMULATOR]

    @property
    def simulators(self) -> dict[LaunchId, Simulator]:
        """Those that run now, by launch."""
        return {launch_id: app[SIMULATOR] for launch_id, app in self._apps.items()}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{next(iter(self._ports.values()))}"

    async def start(self, launch_id: LaunchId) -> None:
        if launch_id in self._runners:
            return
        self.launches += 1
        self._refuse()
        app = build_simulator(self.manners, models=self._models)
        runner = web.AppRunner(
            app,
            handler_cancellation=True,
            auto_decompress=False,
            shutdown_timeout=0.1,
            max_line_size=1024 * 1024,
            max_field_size=1024 * 1024,
        )
        self._runners[launch_id], self._apps[launch_id] = runner, app
        begun_at = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - begun_at < self.boot_s:
            await asyncio.sleep(min(0.01, self.boot_s))
        try:
            self._refuse()
        except Exception:
            await self.stop(launch_id)
            raise
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self._ports[launch_id] = runner.addresses[0][1]

    def _refuse(self) -> None:
        if self.start_error is not None:
            raise self.start_error

    async def inspect(self, launch_id: LaunchId) -> Observation:
        if launch_id not in self._runners:
            return Observation(Phase.GONE)
        if launch_id not in self._ports:
            return Observation(Phase.PENDING)
        url = f"http://127.0.0.1:{self._ports[launch_id]}"
        return Observation(Phase.RUNNING, Upstream(url, is_gateway=self._is_gateway))

    async def stop(self, launch_id: LaunchId) -> None:
        runner = self._runners.pop(launch_id, None)
        self._apps.pop(launch_id, None)
        self._ports.pop(launch_id, None)
        if runner is not None:
            await runner.cleanup()

    async def preempt(self) -> None:
        """Take the machine away, as a provider may: connections are reset."""
        for launch_id, runner in list(self._runners.items()):
            if runner.server is not None:
                for connection in runner.server.connections:
                    if connection.transport is not None:
                        connection.transport.abort()
            await self.stop(launch_id)

    async def owned(self) -> Collection[LaunchId]:
        return set(self._runners)

    async def aclose(self) -> None:
        for launch_id in list(self._runners):
            await self.stop(launch_id)
