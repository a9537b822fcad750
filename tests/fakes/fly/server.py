"""The fake's HTTP side: the Machines API, and Fly's edge before the machines."""

import asyncio
import contextlib
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.fakes.dates import date_of
from tests.fakes.fly.cloud import (
    MANAGED,
    REGIONS,
    FakeApp,
    FakeFly,
    FakeMachine,
    FakeVolume,
)
from tests.fakes.fly.spec import Operation, faults, find

TOKEN = "fly-token-of-the-app-0001"
_CONNECTION = {"Transfer-Encoding", "Connection", "Host", "Content-Length"}


class RefusedError(Exception):
    """The API refuses; carries status, message and the body's own status."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(slots=True)
class FlyServer:
    """The API at ``/v1``; machines behind ``/edge``, as at ``<app>.fly.dev``.

    - ``script``: faults of the next calls of an operation, one each: ``lost-before``
      and ``lost-after`` it acted, ``html-502-after``, ``408-after``, ``empty`` or
      ``null`` (a list), ``page-lost`` (a list shows only strangers'), or a status, with
      a text after a colon.
    - ``always``: the same for every call.
    - ``is_paced``: refuses more calls than Fly allows in real time.
    """

    cloud: FakeFly
    script: dict[str, list[str]] = field(default_factory=dict)
    always: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    inside: dict[str, str] = field(default_factory=dict)
    token: dict[str, Any] = field(default_factory=lambda: {"apps": ["llm"]})
    seen: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    edge_connections: set[asyncio.Transport] = field(default_factory=set)
    retry_after: str = ""
    is_paced: bool = True
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/edge/"):
            return await self._edge(request)
        found = find(request.method, request.path.removeprefix("/v1"))
        if found is None or not request.path.startswith("/v1/"):
            self.violations.append(f"no operation {request.method} {request.path}")
            return web.json_response({"error": "no such path"}, status=404)
        operation, names = found
        self.calls.append(operation.name)
        planned = self.script.get(operation.name)
        fault = planned.pop(0) if planned else self.always.get(operation.name, "")
        if fault == "lost-before":
            return _cut(request)
        if fault == "html-404":
            return web.Response(status=404, text="<html>default backend</html>")
        try:
            answer = await self._act(request, operation, names, fault)
        except RefusedError as error:
            return self._refusal(error)
        return self._answer(operation, answer, fault, request)

    def _refusal(self, error: RefusedError) -> web.Response:
        """Refuse; at 429 say, if ``retry_after`` is set, for how long."""
        body = {"error": str(error)}
        if error.status == 429 and self.retry_after:
            headers = {"Retry-After": self.retry_after}
            return web.json_response(body, status=429, headers=headers)
        if error.code is not None:
            body["status"] = error.code
        return web.json_response(body, status=error.status)

    def _answer(
        self, operation: Operation, answer: Any, fault: str, request: web.Request
    ) -> web.StreamResponse:
        """Answer the call, unless the script loses its answer."""
        if fault == "lost-after":
            return _cut(request)
        if fault == "408-after":
            body = {"error": "deadline_exceeded: no answer in time"}
            return web.json_response(body, status=408)
        if fault == "null":  # Go's nil list
            return web.json_response(None)
        if fault == "html-502-after":
            return web.Response(status=502, text="<html>Bad Gateway</html>")
        if fault == "empty":
            answer = []
        if fault == "page-lost":
            answer = [one for one in answer if not _is_ours(one)]
        if operation.response is not None:
            wrong = faults(operation.response, answer)
            self.violations += [f"answer of {operation.name}: {one}" for one in wrong]
        if answer is None:
            return web.Response(status=operation.status)
        return web.json_response(answer, status=operation.status)

    async def _act(
        self, request: web.Request, operation: Operation, names: list[str], fault: str
    ) -> Any:
        status, _, text = fault.partition(":")
        if status.isdecimal():
            raise RefusedError(int(status), text or "as the test wants it")
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise RefusedError(401, "Authenticate: token validation error")
        if self.is_paced:
            self._pace(operation.name, request)
        body = await self._body(request, operation)
        act = getattr(self, "_" + operation.name.lower(), None)
        if act is None:
            self.violations.append(f"the fake knows no {operation.name}")
            raise RefusedError(400, "unknown")
        return act(names, body, request)

    def _pace(self, name: str, request: web.Request) -> None:
        """Refuse more than Fly allows: one a second and thing, three in a burst."""
        now = asyncio.get_running_loop().time()
        is_look = name in {"Machines_show", "Machines_wait"}
        most, within_s = (20, 2.0) if is_look else (6, 3.0)
        times = self.seen[f"{request.method} {request.path}"]
        while times and now - times[0] > within_s:
            times.popleft()
        times.append(now)
        if len(times) > most:
            self.violations.append(f"too many calls of {name}")
            raise RefusedError(429, "rate limit exceeded")

    async def _body(self, request: web.Request, operation: Operation) -> Any:
        unknown = set(request.query) - operation.query - {"ttl"}
        if unknown:
            self.violations.append(f"{operation.name}: unknown query {unknown}")
        raw = await request.read()
        if operation.name == "Machines_stop" and not raw:
            raise RefusedError(400, "a body is missing")
        if operation.request is None or not raw:
            return {}
        body = await request.json()
        if wrong := faults(operation.request, body):
            self.violations += [f"{operation.name}: {one}" for one in wrong]
            raise RefusedError(400, wrong[0])
        return body

    def _app(self, name: str) -> FakeApp:
        if name not in self.cloud.apps:
            raise RefusedError(404, "app not found")
        return self.cloud.apps[name]

    def _machine(self, names: list[str]) -> FakeMachine:
        machine = self._app(names[0]).machines.get(names[1])
        if machine is None or not self.cloud.is_there(machine):
            raise RefusedError(404, "machine not found")
        return machine

    def _held(self, machine: FakeMachine, request: web.Request) -> None:
        """Refuse a change without the nonce of the present lock.

        Nothing can be changed on an unreachable host.
        """
        if machine.host_status == "unreachable" and self.cloud.hosts_refuse:
            raise RefusedError(503, "the host of the machine can't be reached")
        given = request.headers.get("fly-machine-lease-nonce")
        held = machine.nonce and self.cloud.now() < machine.leased_until
        if held and given != machine.nonce:
            raise RefusedError(409, f"lease currently held by x, expires at {1}")

    def shown(self, machine: FakeMachine) -> dict[str, Any]:
        config = dict(machine.config)
        config["services"] = [
            {k: v for k, v in one.items() if k != "autostop"}
            for one in config.get("services", [])
        ]
        shown: dict[str, Any] = {
            "id": machine.id,
            "name": machine.name,
            "state": self.cloud.state(machine),
            "region": machine.region,
            "instance_id": machine.version,
            "private_ip": "fdaa::1",
            "config": config,
            "host_status": machine.host_status,
            "created_at": date_of(machine.made_at),
            "updated_at": "2026-11-21T00:00:00Z",
        }
        if self.cloud.shows_events:
            shown["events"] = machine.events
        if machine.host_status == "unreachable":
            del shown["config"]
            shown["incomplete_config"] = config
        return shown

    def _apps_show(self, names: list[str], _b: Any, _r: web.Request) -> Any:
        app = self._app(names[0])
        organization = {"name": app.org, "slug": app.org}
        counts = {"machine_count": len(app.machines), "volume_count": len(app.volumes)}
        return {"id": "a1", "name": app.name, "organization": organization} | counts

    def _apps_create(self, _n: list[str], body: Any, _r: web.Request) -> Any:
        if body["name"] in self.cloud.apps:
            raise RefusedError(422, "Name has already been taken", "name_taken")
        self.cloud.add_app(body["name"], body["org_slug"])

    def _apps_delete(self, names: list[str], _b: Any, _r: web.Request) -> Any:
        app = self._app(names[0])
        if [m for m in app.machines.values() if self.cloud.is_there(m)]:
            raise RefusedError(412, "the app has machines")
        for volume in app.volumes.values():
            volume.deleted_at = volume.deleted_at or self.cloud.now()
        self.cloud.gone_apps.append(self.cloud.apps.pop(app.name))

    def _machines_list(self, names: list[str], _b: Any, _r: web.Request) -> Any:
        listed_before = self.cloud.now() - self.cloud.timing.lag_s
        return [
            self.shown(machine)
            for machine in self._app(names[0]).machines.values()
            if self.cloud.is_there(machine) and machine.made_at <= listed_before
        ]

    def _machines_show(self, names: list[str], _b: Any, _r: web.Request) -> Any:
        return self.shown(self._machine(names))

    def _machines_list_events(self, names: list[str], _b: Any, r: web.Request) -> Any:
        machine = self._app(names[0]).machines.get(names[1])
        if machine is None or not (
            self.cloud.is_there(machine) or self.cloud.events_outlive
        ):
            raise RefusedError(404, "machine not found")
        return machine.events[: int(r.query.get("limit", "20"))]

    def _machines_create(self, names: list[str], body: Any, _r: web.Request) -> Any:
        app, cloud = self._app(names[0]), self.cloud
        for machine in app.machines.values():
            if machine.name == body["name"] and cloud.is_there(machine):
                told = f"machine ID {machine.id} already exists with name"
                raise RefusedError(409, f"unique machine name violation, {told}")
        if body["region"] not in REGIONS:
            raise RefusedError(400, "unknown region")
        if body["region"] in cloud.full:
            raise RefusedError(422, "no room", "insufficient_capacity")
        for mount in body["config"].get("mounts", []):
            self._mountable(app, mount["volume"], body["region"])
        now = cloud.now()
        machine = FakeMachine(
            uuid.uuid4().hex[:14],
            body["name"],
            body["region"],
            body["config"],
            now,
            uuid.uuid4().hex,
            since=now,
        )
        app.machines[machine.id] = machine
        # By Fly's documentation events have no configuration; this one has, to be safe.
        launched = {"config": body["config"]}
        cloud.tell(machine, "launch", status="created", request=launched)
        cloud.made += 1
        shown = {}
        if body.get("lease_ttl"):
            machine.nonce = shown["nonce"] = uuid.uuid4().hex
            machine.leased_until = now + body["lease_ttl"]
        if not body.get("skip_launch"):
            cloud.change(machine, "start")
        return self.shown(machine) | shown

    def _mountable(self, app: FakeApp, volume_id: str, region: str) -> None:
        volume = app.volumes.get(volume_id)
        if volume is None or volume.deleted_at is not None or volume.region != region:
            raise RefusedError(400, "there is no such volume in that region")
        if self.cloud.holder(app, volume) is not None:
            raise RefusedError(412, "volume is bound to another machine")

    def _machines_update(self, names: list[str], body: Any, r: web.Request) -> Any:
        machine = self._machine(names)
        self._held(machine, r)
        if body.get("current_version") not in {None, machine.version}:
            raise RefusedError(409, "machine update failed due to concurrent update")
        machine.config, machine.version = body["config"], uuid.uuid4().hex
        if not body.get("skip_launch"):
            self.cloud.change(machine, "start")
        return self.shown(machine)

    def _machines_delete(self, names: list[str], _b: Any, r: web.Request) -> Any:
        machine = self._machine(names)
        self._held(machine, r)
        resting = self.cloud.state(machine) in {"stopped", "suspended", "created"}
        if not resting and r.query.get("force") != "true":
            raise RefusedError(412, "machine is running")
        self.cloud.change(machine, "destroy")

    def _machines_create_lease(
        self, names: list[str], body: Any, r: web.Request
    ) -> Any:
        machine = self._machine(names)
        self._held(machine, r)
        machine.nonce = uuid.uuid4().hex
        machine.leased_until = self.cloud.now() + body["ttl"]
        return {"nonce": machine.nonce, "expires_at": int(machine.leased_until)}

    def _machines_release_lease(self, names: list[str], _b: Any, r: web.Request) -> Any:
        machine = self._machine(names)
        self._held(machine, r)
        machine.nonce = None

    def _machines_upsert_metadata(
        self, names: list[str], body: Any, _r: web.Request
    ) -> Any:
        self._machine(names).metadata[names[2]] = body["value"]

    def _machines_start(self, names: list[str], _b: Any, r: web.Request) -> Any:
        machine, cloud = self._machine(names), self.cloud
        self._held(machine, r)
        state = cloud.state(machine)
        if state == "started":
            return
        if cloud.now() < machine.made_at + cloud.timing.prepare_s:
            told = "unable to start machine from current state: 'created'"
            raise RefusedError(412, told)
        if state not in {"created", "stopped", "suspended"}:
            raise RefusedError(412, "machine still active, refusing to start")
        self._room(self._app(names[0]), machine)
        cloud.change(machine, "start")

    def _room(self, app: FakeApp, machine: FakeMachine) -> None:
        volume = app.volumes.get(machine.volume or "")
        if machine.region in self.cloud.full or (volume and volume.host_is_full):
            told = "could not reserve resource for machine: insufficient CPUs"
            raise RefusedError(409, told)

    def _machines_stop(self, names: list[str], _b: Any, r: web.Request) -> Any:
        machine = self._machine(names)
        self._held(machine, r)
        if self.cloud.state(machine) in {"created", "destroying", "destroyed"}:
            raise RefusedError(412, "machine can't be stopped in its state")
        self.cloud.change(machine, "stop")

    def _machines_suspend(self, names: list[str], _b: Any, r: web.Request) -> Any:
        machine = self._machine(names)
        self._held(machine, r)
        if not self.cloud.suspends or machine.config["guest"]["memory_mb"] > 2048:
            raise RefusedError(400, "machine can't be suspended")
        self.cloud.change(machine, "suspend")
        self._silence()

    def _machines_wait(self, names: list[str], _b: Any, r: web.Request) -> Any:
        machine = self._machine(names)
        if int(r.query.get("timeout", "0")) > 60:
            raise RefusedError(400, "timeout is at most 60")
        wanted = r.query.get("state", "started")
        if self.cloud.state(machine) != wanted:
            raise RefusedError(408, "deadline_exceeded: failed to reach desired state")
        return {"ok": True, "state": wanted, "version": machine.version}

    def _shown_volume(self, app: FakeApp, volume: FakeVolume) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": volume.id,
            "name": volume.name,
            "region": volume.region,
            "size_gb": volume.size_gb,
            "created_at": date_of(volume.made_at),
            "state": "pending_destroy" if volume.deleted_at is not None else "created",
        }
        if (holder := self.cloud.holder(app, volume)) is not None:
            shown["attached_machine_id"] = holder.id
        return shown

    def _volumes_list(self, names: list[str], _b: Any, _r: web.Request) -> Any:
        app = self._app(names[0])
        return [self._shown_volume(app, one) for one in app.volumes.values()]

    def _volumes_create(self, names: list[str], body: Any, _r: web.Request) -> Any:
        app = self._app(names[0])
        source = app.volumes.get(body.get("source_volume_id", ""))
        if body["region"] not in REGIONS:
            raise RefusedError(400, "unknown region")
        if source is not None and self.cloud.copies_refused:
            raise RefusedError(400, "no copies")
        size = source.size_gb if source else body.get("size_gb", 3)
        volume = FakeVolume(
            f"vol_{uuid.uuid4().hex[:12]}",
            body["name"],
            body["region"],
            size,
            self.cloud.now(),
            source.id if source else None,
            body.get("compute"),
        )
        app.volumes[volume.id] = volume
        return self._shown_volume(app, volume)

    def _volumes_get_by_id(self, names: list[str], _b: Any, _r: web.Request) -> Any:
        app = self._app(names[0])
        if names[1] not in app.volumes:
            raise RefusedError(404, "no such volume")
        return self._shown_volume(app, app.volumes[names[1]])

    def _volume_delete(self, names: list[str], _b: Any, _r: web.Request) -> Any:
        app = self._app(names[0])
        volume = app.volumes.get(names[1])
        if volume is None:
            raise RefusedError(404, "no such volume")
        if self.cloud.holder(app, volume) is not None:
            raise RefusedError(412, "volume is currently bound to machine")
        volume.deleted_at = self.cloud.now()
        return self._shown_volume(app, volume)

    def _volumes_list_snapshots(self, _n: list[str], _b: Any, _r: web.Request) -> Any:
        return []

    def _app_ipassignments_list(
        self, names: list[str], _b: Any, _r: web.Request
    ) -> Any:
        addresses = self._app(names[0]).addresses.items()
        return {"ips": [{"ip": ip, "shared": k == "shared_v4"} for ip, k in addresses]}

    def _app_ipassignments_create(
        self, names: list[str], body: Any, _r: web.Request
    ) -> Any:
        kind = body["type"]
        texts = {"shared_v4": "66.241.1.1", "v6": "2a09::1", "private_v6": "fdaa::9"}
        self._app(names[0]).addresses[texts[kind]] = kind
        return {"ip": texts[kind], "shared": kind == "shared_v4"}

    def _app_ipassignments_delete(
        self, names: list[str], _b: Any, _r: web.Request
    ) -> Any:
        self._app(names[0]).addresses.pop(names[1])

    def _platform_regions_get(self, _n: list[str], _b: Any, _r: web.Request) -> Any:
        rows = [{"code": code, "name": code, "deprecated": False} for code in REGIONS]
        return {"nearest": "fra", "regions": rows}

    def _platform_placements_post(
        self, _n: list[str], body: Any, _r: web.Request
    ) -> Any:
        asked = [one for one in body["region"].split(",") if one in REGIONS]
        rows = [{"region": r, "count": int(r not in self.cloud.full)} for r in asked]
        return {"regions": rows}

    def _currenttoken_show(self, _n: list[str], _b: Any, _r: web.Request) -> Any:
        return {"tokens": [self.token]}

    async def _edge(self, request: web.Request) -> web.StreamResponse:
        """Hand a request to a machine, as Fly's edge does, if it is one that runs."""
        if request.transport is not None:
            self.edge_connections.add(request.transport)
        machine_id = request.headers.get("fly-force-instance-id", "")
        inside = self.inside.get(machine_id)
        if inside is None:
            return web.Response(status=503, text="no machine")
        body = await request.read()
        headers = {k: v for k, v in request.headers.items() if k not in _CONNECTION}
        target = "/" + request.raw_path.removeprefix("/edge/").partition("/")[2]
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, inside + target, data=body, headers=headers
            ) as answer,
        ):
            passed = {k: v for k, v in answer.headers.items() if k not in _CONNECTION}
            response = web.StreamResponse(status=answer.status, headers=passed)
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response

    def _silence(self) -> None:
        """Make every connection to a suspended machine dead, without an RST or FIN."""
        for transport in self.edge_connections:
            if not transport.is_closing():
                transport.pause_reading()
        self.edge_connections.clear()


def _is_ours(shown: dict[str, Any]) -> bool:
    """Tell whether a listed machine or volume is of this product."""
    metadata = shown.get("config", {}).get("metadata", {})
    return MANAGED in metadata or shown.get("name", "").startswith("ollama_")


def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError


@contextlib.asynccontextmanager
async def fly_server(cloud: FakeFly) -> AsyncIterator[FlyServer]:
    """Run API and edge; nothing asked of them may have been unheard of."""
    server = FlyServer(cloud)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(
        app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
        await asyncio.sleep(0.01)  # what was cut closes in a later turn of the loop
    assert server.violations == []
