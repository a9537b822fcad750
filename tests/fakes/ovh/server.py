"""The fake's HTTP side: the API of each region, and the gateway before the apps."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from openapi_schema_validator import OAS30Validator

from tests.fakes.ovh.cloud import ME, FakeApp, FakeOvh
from tests.fakes.ovh.lists import ListRefusedError, Lists
from tests.fakes.ovh.shapes import APP_SPEC, LABEL

AI_TOKEN, CALL_TOKEN = "ai-token-operator-0001", "ai-token-read-0002"


def token_of(region: str, token: str = AI_TOKEN) -> str:
    """Return the token of a region; each has one of its own."""
    return token if region.upper() == "GRA" else f"{token}-{region.lower()}"


class RefusedError(Exception):
    """The API refuses; carries status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class OvhServer:
    """The API of each region at ``/<region>/v1``; apps behind ``/<app id>``.

    - ``wakes_standby``: a request starts an app that was scaled to zero.
    - ``may_write``: the token has the role operator, not read.
    - ``script``: faults of the next calls of an operation, one each: ``lost-before``
      and ``lost-after`` it acted, ``html-502-after``, ``slow``, or a status.
      ``always``: the same for every call.
    - ``gateway``: answers of the gateway instead of an app, in turn;
      ``gateway_by_path``: always, for one path.
    - ``cut_after_s``: how long an answer may take.
    """

    cloud: FakeOvh
    script: dict[str, list[str]] = field(default_factory=dict)
    always: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    inside: dict[str, str] = field(default_factory=dict)
    gateway: list[int] = field(default_factory=list)
    gateway_by_path: dict[str, int] = field(default_factory=dict)
    knows_tokens: bool = True
    cut_after_s: float | None = None
    may_write: bool = True
    wakes_standby: bool = False
    lists: Lists = field(default_factory=Lists)
    told_apps: list[dict[str, str]] = field(default_factory=list)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        head, _, rest = request.path.lstrip("/").partition("/")
        if head in self.cloud.apps:
            return await self._gateway(request, self.cloud.apps[head], "/" + rest)
        return await self._api(request, head.upper(), "/" + rest)

    async def _api(
        self, request: web.Request, region: str, path: str
    ) -> web.StreamResponse:
        name = _operation(request.method, path)
        self.calls.append(name)
        fault = self.fault(name)
        if fault == "slow":
            await self.closing.wait()
        if fault == "lost-before":
            return _cut(request)
        if fault == "html-404":
            return web.Response(status=404, text="<html>default backend</html>")
        try:
            _admit(request, region, fault)
            body = await request.json() if request.can_read_body else None
            answer = self.act(name, region, path, body, dict(request.query))
        except RefusedError as error:
            return web.json_response({"message": str(error)}, status=error.status)
        if fault == "lost-after":
            return _cut(request)
        if fault == "html-502-after":
            return web.Response(status=502, text="<html>Bad Gateway</html>")
        return _answered(answer)

    def fault(self, name: str) -> str:
        planned = self.script.get(name)
        return planned.pop(0) if planned else self.always.get(name, "")

    def act(
        self, name: str, region: str, path: str, body: Any, query: dict[str, str]
    ) -> Any:
        """Do what an operation does; None is an answer without a body."""
        whole: dict[str, Callable[[], Any]] = {
            "me": lambda: ME,
            "flavors": lambda: self.cloud.flavors(region),
            "list": lambda: self._page(region, query),
            "create": lambda: self.create(region, body),
        }
        if name in whole:
            return whole[name]()
        if not name:
            self.violations.append(f"no operation {path}")
            raise RefusedError(404, "no such path")
        self._allow(name)
        app = self._app(region, path.split("/")[3])
        if name == "get":
            return self.cloud.shown(app)
        if name == "log":
            if set(query) - {"follow", "tail", "replica", "page", "size"}:
                self.violations.append(f"log: unknown query {query}")
            return app.log
        if name != "label":
            return self.change(name, app, force=query.get("force") == "true")
        self._check(LABEL, body, name)
        app.spec["labels"] = app.labels | {body["name"]: body["value"]}
        return None

    def _page(self, region: str, query: dict[str, str]) -> dict[str, Any]:
        allowed = {"labelSelector", "statusState", "page", "size", "order", "sort"}
        if unknown := set(query) - allowed:
            self.violations.append(f"list: unknown query {unknown}")
        base = f"{self.url}/{region}"
        try:
            return self.lists.page(self.cloud.listed(region), query, base)
        except ListRefusedError as error:
            raise RefusedError(400, str(error)) from error

    def _allow(self, name: str) -> None:
        if name not in {"get", "log"} and not self.may_write:
            raise RefusedError(403, "forbidden")

    def create(self, region: str, body: Any) -> dict[str, Any]:
        self._allow("create")
        self._check(APP_SPEC, body, "create")
        if body["region"] != region:
            raise RefusedError(400, "that is another region")
        known = {one["id"] for one in self.cloud.flavors(region)}
        if body["resources"].get("flavor") not in known:
            raise RefusedError(400, "unknown flavor")
        return self.cloud.shown(self.cloud.add(region, body))

    def _check(self, schema: dict[str, Any], body: Any, name: str) -> None:
        wrong = [e.message for e in OAS30Validator(schema).iter_errors(body)]
        if wrong:
            self.violations += [f"{name}: {fault}" for fault in wrong]
            raise RefusedError(400, wrong[0])

    def _app(self, region: str, app_id: str) -> FakeApp:
        app = self.cloud.apps.get(app_id)
        if app is None or app.region != region or not self.cloud.is_there(app):
            raise RefusedError(404, "not found")
        return app

    def change(self, what: str, app: FakeApp, *, force: bool) -> None:
        state = self.cloud.state(app)
        resting = {"STOPPED", "FAILED", "ERROR"}
        if what == "delete" and state not in resting and not force:
            raise RefusedError(400, f"an app in state {state} can't be deleted")
        if what == "start" and state not in {"STOPPED", "FAILED"}:
            raise RefusedError(400, f"an app in state {state} can't be started")
        if what == "stop" and state in {"STOPPED", "DELETING", "DELETED"}:
            raise RefusedError(400, f"an app in state {state} can't be stopped")
        if what == "start":
            self.cloud.starts += 1
            app.forced = None
        if what == "stop" and app.forced not in {"FAILED", "ERROR"}:
            app.forced = None
        app.changes.append((self.cloud.now(), what))

    async def _gateway(
        self, request: web.Request, app: FakeApp, path: str
    ) -> web.StreamResponse:
        """Hand a request to an app, as the platform's own front does."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        known = {token_of(app.region), token_of(app.region, CALL_TOKEN)}
        if token not in known or not self.knows_tokens:
            return web.Response(status=401, text="<html>Unauthorized</html>")
        if path in self.gateway_by_path:
            status = self.gateway_by_path[path]
            return web.Response(status=status, text="<html>no</html>")
        if self.gateway:
            return web.Response(status=self.gateway.pop(0), text="<html>wait</html>")
        if app.forced == "STANDBY" and self.wakes_standby:
            app.forced = None
            app.changes.append((self.cloud.now(), "start"))
        inside = self.inside.get(app.id)
        if inside is None or self.cloud.state(app) != "RUNNING":
            return web.Response(status=503, text="<html>No replica</html>")
        self.told_apps.append(dict(request.headers))
        body = await request.read()
        headers = {k: v for k, v in request.headers.items() if k not in _CONNECTION}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, inside + path, data=body, headers=headers
            ) as answer,
        ):
            return await self._pass_on(request, answer)

    async def _pass_on(
        self, request: web.Request, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        passed = {k: v for k, v in answer.headers.items() if k not in _CONNECTION}
        response = web.StreamResponse(status=answer.status, headers=passed)
        await response.prepare(request)
        try:
            async with asyncio.timeout(self.cut_after_s):
                async for data in answer.content.iter_any():
                    await response.write(data)
        except TimeoutError:
            return _cut(request)
        await response.write_eof()
        return response


def _answered(answer: Any) -> web.Response:
    if isinstance(answer, str):  # a log; its form is documented nowhere
        return web.Response(text=answer)
    return web.Response(status=204) if answer is None else web.json_response(answer)


def _admit(request: web.Request, region: str, fault: str) -> None:
    if fault.isdecimal():
        raise RefusedError(int(fault), "as the test wants it")
    if request.headers.get("Authorization") != f"Bearer {token_of(region)}":
        raise RefusedError(401, "unauthorized")


_CONNECTION = {"Transfer-Encoding", "Connection", "Host", "Content-Length"}


def _operation(method: str, path: str) -> str:
    """Return the short name of an operation, empty for none."""
    parts = path.strip("/").split("/")
    if parts[:2] == ["v1", "app"]:
        named = {("GET", 2): "list", ("POST", 2): "create", ("GET", 3): "get"}
        named[("DELETE", 3)] = "delete"
        if method == "GET" and parts[3:] == ["log"]:
            return "log"
        if method == "PUT" and len(parts) == 4 and parts[3] in _CHANGES:
            return parts[3]
        return named.get((method, len(parts)), "")
    whole = {"GET /v1/me": "me", "GET /v1/capabilities/flavor": "flavors"}
    return whole.get(f"{method} {path}", "")


_CHANGES = {"start", "stop", "label"}


def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError


@contextlib.asynccontextmanager
async def ovh_server(cloud: FakeOvh) -> AsyncIterator[OvhServer]:
    """Run the API and the gateway; nothing asked of it may have been unheard of."""
    server = OvhServer(cloud)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(
        app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = cloud.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        server.closing.set()
        await runner.cleanup()
        await asyncio.sleep(0.01)  # what was cut closes in a later turn of the loop
    assert server.violations == []
