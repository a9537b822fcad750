"""What runs on the fake's instances: a guard as user data has it, and the simulator."""

import asyncio
import base64
import contextlib
import functools
import gzip
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from aiohttp.typedefs import Handler

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.simulator.server import (
    SIMULATOR,
    Manners,
    Simulator,
    build_simulator,
)
from ollama_proxy.upstream.certificates import Authority
from tests.fakes.exoscale.boot import Boot
from tests.fakes.exoscale.caddy import run_caddy
from tests.fakes.exoscale.cloud import FakeExoscale, FakeInstance


def read_user_data(text: str) -> dict[str, Any]:
    """Return the cloud-config of an instance, as cloud-init would read it."""
    plain = gzip.decompress(base64.b64decode(text))
    config: dict[str, Any] = yaml.load(plain, yaml.CSafeLoader)  # ten times as fast
    return config


def files_of(config: dict[str, Any]) -> dict[str, str]:
    """Return what a cloud-config writes, by path."""
    return {one["path"]: one["content"] for one in config["write_files"]}


@dataclass(slots=True)
class Guest:
    """One instance's inside. ``stages``: the answers of its guard, in turn.

    - ``report``: how it answers for a failed step; see `reported`.
    - ``told_stages``: its durations of stages; None: it has none. ``driver``: NVIDIA's
      branch and version, likewise.
    - ``logs``: output of steps.
    - ``boot``: the boot that it plays, with the durations of its steps.
    """

    instance: FakeInstance
    stages: list[str]
    runner: web.AppRunner
    simulator: Simulator
    token: str
    process: asyncio.subprocess.Process | None = None
    new_site: Callable[[], web.TCPSite] | None = None
    site: web.TCPSite | None = None
    heartbeats: int = 0
    strangers: int = 0
    report: bytes | str = "absent"
    told_stages: str | None = None
    driver: str | None = None
    logs: dict[str, bytes] = field(default_factory=dict)
    boot: Boot | None = None
    now: Callable[[], float] = field(default_factory=lambda: SystemClock().now)

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            self.strangers += 1
            return web.Response(status=401)
        if request.path == "/-/heartbeat":
            self.heartbeats += 1
            return web.Response(status=204)
        if self.boot is not None:
            return await self._playing(self.boot, request, handler)
        if request.path == "/-/stage":
            stage = self.stages.pop(0) if len(self.stages) > 1 else self.stages[0]
            return web.Response(text=stage + "\n")
        return await self._look_back(request, handler)

    async def _look_back(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Tell how a boot went, if that is asked."""
        if request.path == "/-/report":
            return await reported(request, self.report)
        if request.path == "/-/stages" and self.told_stages is not None:
            return web.Response(body=self.told_stages.encode(errors="surrogateescape"))
        if request.path == "/-/driver" and self.driver is not None:
            return web.Response(body=self.driver.encode(errors="surrogateescape"))
        step = request.path.removeprefix("/-/log/")
        if step in self.logs:
            most = int(request.headers["Range"].removeprefix("bytes=-"))
            return web.Response(status=206, body=self.logs[step][-most:])
        return await handler(request)

    async def _playing(
        self, boot: Boot, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Answer as an instance at this point of its boot, by the fake's clock.

        Before its guard is up a connection ends without an answer.
        """
        up_s = self.now() - self.instance.boots_at
        if not boot.word_at(up_s):
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        if request.path == "/-/stage":
            return web.Response(text=boot.word_at(up_s) + "\n")
        if request.path == "/-/stages":
            return web.Response(text=boot.told_at(up_s))
        if request.path == "/api/pull":
            begun_at = self.now()
            while self.now() - begun_at < boot.pull_s:
                await asyncio.sleep(0.001)
        return await handler(request)


async def reported(request: web.Request, how: bytes | str) -> web.StreamResponse:
    """Answer ``GET /-/report``: with some bytes, or with a fault by its name.

    ``absent``: the guest saved none. ``cut``: the connection ends. ``silent``: no
    answer. ``endless``: the body never ends, one line each tenth of a second.
    """
    if isinstance(how, bytes):
        return web.Response(body=how, content_type="text/plain")
    if how == "absent":
        return web.Response(status=404)
    if how == "cut":
        assert request.transport is not None
        request.transport.abort()
        raise ConnectionResetError
    answer = web.StreamResponse()
    if how == "endless":
        await answer.prepare(request)
    while True:
        await asyncio.sleep(0.1)
        if how == "endless":
            await answer.write(b"E: the mirror is gone\n")


@dataclass(slots=True)
class Guests:
    """Boots a guest in each running instance, and ends it when the instance stops.

    ``mute``: no guard ever listens, because a step before it failed. With ``caddy``, a
    folder, the guard is a real Caddy, set up by the user data.
    """

    cloud: FakeExoscale
    manners: Manners = field(default_factory=lambda: Manners(vram_share=1.0))
    stages: list[str] = field(default_factory=lambda: ["ready"])
    report: bytes | str = "absent"
    mute: bool = False
    models: tuple[str, ...] = ("tiny",)
    port: int = 0
    caddy: Path | None = None
    inside: dict[str, Guest] = field(default_factory=dict)
    told_stages: str | None = None
    driver: str | None = None
    logs: dict[str, bytes] = field(default_factory=dict)
    boot: Boot | None = None
    is_over: bool = False
    usurped: set[str] = field(default_factory=set)
    told_to_strangers: list[bytes] = field(default_factory=list)

    async def follow(self) -> None:
        while not self.is_over:  # a boot that is cut short would leave its socket
            for one in list(self.cloud.instances.values()):
                runs = self.cloud.state(one) == "running" and "user-data" in one.body
                if runs and one.id not in self.usurped | self.inside.keys():
                    self.inside[one.id] = await self._boot(one)
                elif not runs and one.id in self.inside:
                    await self._end(one.id)
                elif runs and one.id not in self.usurped:
                    await self._filter(self.inside[one.id])
            await asyncio.sleep(0.01)

    async def _filter(self, guest: Guest) -> None:
        """Have the group's rules apply: no connection from an address that has none."""
        is_admitted = self.cloud.admits(guest.instance)
        if is_admitted and guest.site is None and guest.new_site is not None:
            guest.site = guest.new_site()
            await guest.site.start()
        elif guest.site is not None and not is_admitted:
            await guest.site.stop()
            guest.site = None
            _abort_connections(guest.runner)

    async def _end(self, instance_id: str) -> None:
        guest = self.inside.pop(instance_id)
        if guest.process is not None:
            guest.process.kill()
            await guest.process.wait()
        _abort_connections(guest.runner)
        await guest.runner.cleanup()

    async def usurp(self, instance_id: str) -> None:
        """Give an instance's address to a stranger, which records its requests."""
        self.usurped.add(instance_id)
        guest = self.inside[instance_id]
        address = guest.instance.address
        await self._end(instance_id)
        clock = SystemClock()
        with tempfile.TemporaryDirectory() as folder:
            issued = Authority(Path(folder), clock).issue(LaunchId("stranger"))
        told = self.told_to_strangers

        async def listen(request: web.Request) -> web.Response:
            told.append(await request.read())
            return web.Response(text="thank you")

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", listen)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        files = {
            "/etc/ollama-proxy/server.crt": issued.certificate,
            "/etc/ollama-proxy/server.key": issued.key,
        }
        context = _server_context(files)
        await web.TCPSite(runner, address, self.port, ssl_context=context).start()
        self.inside[instance_id] = Guest(
            guest.instance, [], runner, guest.simulator, ""
        )

    async def _boot(self, one: FakeInstance) -> Guest:
        files = files_of(read_user_data(one.body["user-data"]))
        app = build_simulator(self.manners, models=self.models)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        link = files["/etc/ollama-proxy/link.env"]
        token = link.strip().removeprefix("LINK_TOKEN=")
        guest = Guest(
            one,
            list(self.stages),
            runner,
            app[SIMULATOR],
            token,
            report=self.report,
            told_stages=self.told_stages,
            driver=self.driver,
            logs=self.logs,
            boot=self.boot,
            now=self.cloud.now,
        )
        if self.mute:
            await runner.setup()
            return guest
        if self.caddy is not None:
            await runner.setup()
            guest.process = await self._run_caddy(files, guest, self.caddy)
            return guest
        app.middlewares.insert(0, guest.guard)
        await runner.setup()
        context = _server_context(files)
        guest.new_site = functools.partial(
            web.TCPSite, runner, one.address, self.port, ssl_context=context
        )
        await self._filter(guest)
        return guest

    async def _run_caddy(
        self, files: dict[str, str], guest: Guest, folder: Path
    ) -> asyncio.subprocess.Process:
        """Put the files where the installation does, and start Caddy."""
        await web.TCPSite(guest.runner, "127.0.0.1", 0).start()
        for part in ("link", "run/ollama-proxy"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for name in ("server.crt", "server.key"):
            (folder / "link" / name).write_text(files[f"/etc/ollama-proxy/{name}"])
        (folder / "Caddyfile").write_text(files["/etc/ollama-proxy/Caddyfile"])
        (folder / "run/ollama-proxy/stage").write_text("ready\n")
        return await run_caddy(
            folder / "Caddyfile",
            port=self.port,
            ollama_port=guest.runner.addresses[0][1],
            folder=folder,
            token=guest.token,
        )


def _abort_connections(runner: web.AppRunner) -> None:
    for connection in runner.server.connections if runner.server else ():
        if connection.transport is not None:
            connection.transport.abort()


def _server_context(files: dict[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("server.crt", "server.key"):
            Path(folder, name).write_text(files[f"/etc/ollama-proxy/{name}"])
        context.load_cert_chain(Path(folder, "server.crt"), Path(folder, "server.key"))
    return context


@contextlib.asynccontextmanager
async def guests_of(cloud: FakeExoscale, port: int) -> AsyncIterator[Guests]:
    """Have guests in the instances of a cloud, all on one port of their addresses."""
    guests = Guests(cloud, port=port)
    following = asyncio.ensure_future(guests.follow())
    try:
        yield guests
    finally:
        guests.is_over = True
        await asyncio.gather(following, return_exceptions=True)
        for instance_id in list(guests.inside):
            await guests._end(instance_id)
