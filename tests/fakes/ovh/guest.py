"""What runs in the fake's apps: the image's guard, and the simulator behind it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler

from ollama_proxy.core.http.headers import GUARD_HEADER, GUARD_TOKEN
from ollama_proxy.simulator.server import Manners, build_simulator
from tests.fakes.ovh.cloud import FakeApp
from tests.fakes.ovh.server import OvhServer


@dataclass(slots=True)
class Guest:
    """One app's inside; its guard takes the allowed token from the environment."""

    app: FakeApp
    runner: web.AppRunner
    heartbeats: int = 0
    strangers: int = 0

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        environment = self.app.environment
        is_open = environment.get("GUARD") == "platform"
        wanted = environment.get("GUARD_TOKEN")
        if not is_open and (not wanted or request.headers.get(GUARD_TOKEN) != wanted):
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
    """Boots a guest in each app that runs, and ends it when that does not."""

    server: OvhServer
    manners: Manners = field(default_factory=Manners)
    models: tuple[str, ...] = ("tiny",)
    inside: dict[str, Guest] = field(default_factory=dict)
    is_over: bool = False

    async def follow(self) -> None:
        cloud = self.server.cloud
        while not self.is_over:  # a boot that is cut short would leave its socket
            for app in list(cloud.apps.values()):
                runs = cloud.state(app) == "RUNNING"
                if runs and app.id not in self.inside:
                    await self._boot(app)
                elif not runs and app.id in self.inside:
                    await self.end(app.id)
            await asyncio.sleep(0.01)

    async def _boot(self, app: FakeApp) -> None:
        inside = build_simulator(self.manners, models=self.models)
        runner = web.AppRunner(inside, handler_cancellation=True, shutdown_timeout=0.1)
        guest = Guest(app, runner)
        inside.middlewares.insert(0, guest.guard)
        inside.on_response_prepare.append(_mark)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.inside[app.id] = guest
        self.server.inside[app.id] = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def end(self, app_id: str) -> None:
        guest = self.inside.pop(app_id)
        self.server.inside.pop(app_id, None)
        if guest.runner.server is not None:
            for connection in guest.runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
        await guest.runner.cleanup()


@contextlib.asynccontextmanager
async def guests_of(server: OvhServer) -> AsyncIterator[Guests]:
    """Have guests in the apps of a cloud."""
    guests = Guests(server)
    following = asyncio.ensure_future(guests.follow())
    try:
        yield guests
    finally:
        guests.is_over = True
        await asyncio.gather(following, return_exceptions=True)
        for app_id in list(guests.inside):
            await guests.end(app_id)
