"""What runs in the fake's machines: the image's guard, and the simulator behind it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler

from ollama_proxy.core.http.headers import GUARD_HEADER
from ollama_proxy.simulator.server import Manners, build_simulator
from tests.fakes.fly.cloud import FakeMachine
from tests.fakes.fly.server import FlyServer


@dataclass(slots=True)
class Guest:
    """One machine's inside; its guard takes the allowed token from the environment."""

    machine: FakeMachine
    runner: web.AppRunner
    heartbeats: int = 0
    strangers: int = 0

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted = self.machine.environment.get("GUARD_TOKEN")
        if not wanted or request.headers.get("Authorization") != f"Bearer {wanted}":
            self.strangers += 1
            return web.Response(status=401)
        if request.path == "/-/heartbeat":
            self.heartbeats += 1
            return web.Response(status=204)
        if request.path == "/-/stage":
            return web.Response(text="ready")
        return await handler(request)


async def _mark(request: web.Request, response: web.StreamResponse) -> None:
    if response.status != 401:
        response.headers[GUARD_HEADER] = "1"


@dataclass(slots=True)
class Guests:
    """Boots a guest in each running machine, and ends it when the machine stops.

    A suspended machine keeps its guest, unreachable.
    """

    server: FlyServer
    manners: Manners = field(default_factory=Manners)
    models: tuple[str, ...] = ("tiny",)
    boots: bool = True
    inside: dict[str, Guest] = field(default_factory=dict)
    is_over: bool = False

    async def follow(self) -> None:
        cloud = self.server.cloud
        while not self.is_over:  # a boot that is cut short would leave its socket
            for machine in cloud.machines():
                state = cloud.state(machine)
                runs = state == "started" and machine.environment and self.boots
                if runs and machine.id not in self.inside:
                    await self._boot(machine)
                elif not runs and machine.id in self.inside and state != "suspended":
                    await self.end(machine.id)
                if machine.id in self.inside:
                    self._reach(machine, awake=bool(runs))
            await asyncio.sleep(0.01)

    def _reach(self, machine: FakeMachine, *, awake: bool) -> None:
        """Let the edge know a machine, or not."""
        port = self.inside[machine.id].runner.addresses[0][1]
        if awake:
            self.server.inside[machine.id] = f"http://127.0.0.1:{port}"
        else:
            self.server.inside.pop(machine.id, None)

    async def _boot(self, machine: FakeMachine) -> None:
        inside = build_simulator(self.manners, models=self.models)
        runner = web.AppRunner(inside, handler_cancellation=True, shutdown_timeout=0.1)
        guest = Guest(machine, runner)
        inside.middlewares.insert(0, guest.guard)
        inside.on_response_prepare.append(_mark)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.inside[machine.id] = guest

    async def end(self, machine_id: str) -> None:
        guest = self.inside.pop(machine_id)
        self.server.inside.pop(machine_id, None)
        if guest.runner.server is not None:
            for connection in guest.runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
        await guest.runner.cleanup()


@contextlib.asynccontextmanager
async def guests_of(server: FlyServer) -> AsyncIterator[Guests]:
    """Have guests in the machines of a cloud."""
    guests = Guests(server)
    following = asyncio.ensure_future(guests.follow())
    try:
        yield guests
    finally:
        guests.is_over = True
        await asyncio.gather(following, return_exceptions=True)
        for machine_id in list(guests.inside):
            await guests.end(machine_id)
