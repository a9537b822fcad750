"""The fake's HTTP side: signatures, strict shapes, zones, and faults by script."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from ollama_proxy.base.clock import SystemClock
from tests.fakes.dates import date_of
from tests.fakes.exoscale.cloud import GIB, ZONES, FakeExoscale, FakeInstance, new_id
from tests.fakes.exoscale.spec import Operation, faults, find

KEY, SECRET = "EXOtestkey", "testsecret"
_LABEL = re.compile(r"[A-Za-z*+!_?-][A-Za-z0-9*+!_?-]{0,127}\Z")
_RULE_KEYS = ("flow-direction", "protocol", "network", "start-port", "end-port")

Answer = dict[str, Any] | list[Any]


class RefusedError(Exception):
    """The API refuses; carries status and body."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def signature(
    method: str, path: str, body: bytes, query: str, names: str, expires: str
) -> str:
    """Return what the one right signature of a request is."""
    values = parse_qs(query, keep_blank_values=True)
    signed = "".join(values[name][0] for name in names.split(";") if name)
    message = b"\n".join(
        [f"{method} {path}".encode(), body, signed.encode(), b"", expires.encode()]
    )
    mac = hmac.new(SECRET.encode(), message, hashlib.sha256)
    return base64.standard_b64encode(mac.digest()).decode()


@dataclass(slots=True)
class ExoscaleServer:
    """The API of every zone at ``/<zone>/v2``.

    - ``script``: faults of the next calls of an operation, one each: ``lost-before``
      and ``lost-after`` it acted, ``500-after``, ``html-502-after``, ``slow``,
      ``protected``, ``empty``, ``page-lost`` (a list shows only strangers'),
      ``no-reference`` (an operation does not name its object), or a status.
    - ``always``: the same for every call.
    - ``limit``: numbers of the calls, from 1 on, that are refused with 429;
      ``retry_after``: their header; ``hasty``: calls that did not wait for it.
    - ``moves_after``: the source address after a call of an operation.
    """

    cloud: FakeExoscale
    script: dict[str, list[str]] = field(default_factory=dict)
    always: dict[str, str] = field(default_factory=dict)
    limit: Callable[[int], bool] = lambda _number: False
    retry_after: str | None = "1"
    hasty: list[str] = field(default_factory=list)
    _open_at: float = 0.0
    moves_after: dict[str, str] = field(default_factory=dict)
    skew_s: float = 0.0
    calls: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    url: str = ""
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        zone, _, rest = request.path.lstrip("/").partition("/v2")
        found = find(request.method, rest)
        if found is None:
            self.violations.append(f"no operation {request.method} {request.path}")
            return web.json_response({"message": "not found"}, status=404)
        operation, ids = found
        self.calls.append(operation.name)
        fault = self._fault(operation.name)
        if zone not in ZONES:
            fault = "lost-before"  # there is no host of such a name
        if self._is_limited(operation.name):
            fault = "429"
        if fault == "slow":
            await self.closing.wait()
        if fault == "lost-before":
            return self._cut(request)
        if fault == "protected":
            message = "is forbidden - reason: manual instance protection"
            return self._refusal(403, message)
        if fault.isdecimal():
            return self._refusal(int(fault), "as the test wants it")
        try:
            body = await self._checked(request, operation)
            answer = self._act(operation.name, zone, ids, body, request)
        except RefusedError as error:
            return self._refusal(error.status, str(error))
        wrong = faults(operation.response, answer)
        self.violations += [f"answer of {operation.name}: {one}" for one in wrong]
        return self._answered(request, fault, answer)

    def _answered(
        self, request: web.Request, fault: str, answer: Answer
    ) -> web.StreamResponse:
        """Answer the call, unless the script loses its answer."""
        match fault:
            case "lost-after":
                return self._cut(request)
            case "500-after":
                return self._refusal(500, "something went wrong")
            case "html-502-after":
                return web.Response(status=502, text="<html>Bad Gateway</html>")
            case shape if shape in _SHAPES and isinstance(answer, dict):
                return web.json_response(_SHAPES[shape](answer))
            case _:
                return web.json_response(answer)

    def _fault(self, name: str) -> str:
        planned = self.script.get(name)
        return planned.pop(0) if planned else self.always.get(name, "")

    def _is_limited(self, name: str) -> bool:
        """Tell whether a call is one too many; note one that did not wait."""
        now = self.cloud.now()
        if now < self._open_at:
            self.hasty.append(name)
        if not self.limit(len(self.calls)):
            return False
        told = self.retry_after or ""
        self._open_at = now + (int(told) if told.isdecimal() else 0)
        return True

    def _cut(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        raise ConnectionResetError

    def _refusal(self, status: int, message: str) -> web.Response:
        headers = {}
        if status == 429 and self.retry_after is not None:
            headers = {"Retry-After": self.retry_after}
        return web.json_response({"message": message}, status=status, headers=headers)

    async def _checked(self, request: web.Request, operation: Operation) -> Any:
        """Check signature, query and body; refuse what is not as described."""
        raw = await request.read()
        if operation.name != "list-zones":  # which is open to everybody
            self._check_signature(request, raw)
        if unknown := set(request.query) - operation.query:
            self.violations.append(f"{operation.name}: unknown query {unknown}")
            raise RefusedError(400, f"unknown query {unknown}")
        if operation.request is None or not raw:
            return {}
        body = await request.json()
        if wrong := faults(operation.request, body):
            self.violations += [f"{operation.name}: {fault}" for fault in wrong]
            raise RefusedError(400, wrong[0])
        return body

    def _check_signature(self, request: web.Request, raw: bytes) -> None:
        given = request.headers.get("Authorization", "")
        scheme, _, rest = given.partition(" ")
        fields = dict(part.split("=", 1) for part in rest.split(",") if "=" in part)
        expires = fields.get("expires", "0")
        right = signature(
            request.method,
            request.raw_path.partition("?")[0],
            raw,
            request.query_string,
            fields.get("signed-query-args", ""),
            expires,
        )
        now = SystemClock().now() + self.skew_s
        known = scheme == "EXO2-HMAC-SHA256" and fields.get("credential") == KEY
        if not known or fields.get("signature") != right or int(expires) < now:
            raise RefusedError(403, "invalid signature")

    def _act(
        self, name: str, zone: str, ids: list[str], body: Any, request: web.Request
    ) -> Answer:
        act = getattr(self, f"_{name.replace('-', '_')}", None)
        if act is None:
            self.violations.append(f"the fake knows no {name}")
            raise RefusedError(400, f"the fake knows no {name}")
        answer: Answer = act(zone, ids, body, request.query)
        if request.method != "GET":
            path = {"id": ids[0]} if ids else {}
            params = {"path-params": path, "body-params": body or {}}
            self.cloud.note(name, zone, KEY, **params)
            self.cloud.source_ip = self.moves_after.pop(name, self.cloud.source_ip)
        return answer

    def _instance(self, zone: str, instance_id: str) -> FakeInstance:
        one = self.cloud.instances.get(instance_id)
        if one is None or one.zone != zone or not self.cloud.exists(one):
            raise RefusedError(404, "Not Found")
        return one

    def _operation(self, reference: str, refused: str | None = None) -> Answer:
        made = self.cloud.operation(reference, refused)
        return self._shown_operation(made.id)

    def _shown_operation(self, operation_id: str) -> Answer:
        one = self.cloud.operations.get(operation_id)
        if one is None:
            raise RefusedError(404, "Not Found")
        state = "pending"
        if self.cloud.now() >= one.ends_at:
            state = "failure" if one.refused else "success"
        shown: dict[str, Any] = {"id": one.id, "state": state}
        if one.refused and state == "failure":
            shown["reason"] = one.refused
            if one.message:
                shown["message"] = one.message
        link = f"/v2/instance/{one.reference}"
        return shown | {"reference": {"id": one.reference, "link": link}}

    def _shown(self, one: FakeInstance, *, whole: bool) -> dict[str, Any]:
        state = self.cloud.state(one)
        shown: dict[str, Any] = {
            "id": one.id,
            "name": one.body.get("name", ""),
            "state": state,
            "created-at": date_of(one.created_at),
        }
        if one.labels:
            shown["labels"] = one.labels
        up_s = self.cloud.now() - one.boots_at
        if state == "running" and up_s >= self.cloud.timing.address_s:
            shown["public-ip"] = one.address
        if whole:
            shown["disk-size"] = one.body["disk-size"]
            shown["instance-type"] = one.body.get("instance-type", {})
        return shown

    def _get_operation(self, _zone: str, ids: list[str], _b: Any, _q: Any) -> Answer:
        return self._shown_operation(ids[0])

    def _list_zones(self, _z: str, _i: Any, _b: Any, _q: Any) -> Answer:
        return {"zones": [{"name": zone} for zone in ZONES]}

    def _list_instance_types(self, zone: str, _i: Any, _b: Any, _q: Any) -> Answer:
        return {"instance-types": self.cloud.types(zone)}

    def _list_templates(self, zone: str, _i: Any, _b: Any, query: Any) -> Answer:
        return {"templates": self.cloud.templates(zone, query["visibility"])}

    def _list_quotas(self, _z: str, _i: Any, _b: Any, _q: Any) -> Answer:
        quotas = self.cloud.quotas.items()
        return {
            "quotas": [{"resource": n, "usage": u, "limit": m} for n, (u, m) in quotas]
        }

    def _list_instances(self, zone: str, _i: Any, _b: Any, _q: Any) -> Answer:
        now = self.cloud.now()
        listed = [
            self._shown(one, whole=False)
            for one in self.cloud.instances.values()
            if one.zone == zone and self.cloud.exists(one) and now >= one.listed_at
        ]
        return {"instances": listed}

    def _get_instance(self, zone: str, ids: list[str], _b: Any, _q: Any) -> Answer:
        return self._shown(self._instance(zone, ids[0]), whole=True)

    def _create_instance(self, zone: str, _i: Any, body: Any, _q: Any) -> Answer:
        types = {one["id"]: one for one in self.cloud.types(zone)}
        templates = {t["id"]: t for t in self.cloud.templates(zone, "public")}
        if body["instance-type"]["id"] not in types:
            raise RefusedError(404, "instance type not found")
        template = templates.get(body["template"]["id"])
        if template is None:
            raise RefusedError(404, "template not found")
        if template["size"] > body["disk-size"] * GIB:
            raise RefusedError(400, "disk too small")
        for group in body.get("security-groups", []):
            if group["id"] not in self.cloud.groups:
                raise RefusedError(404, "security group not found")
        for value in body.get("labels", {}).values():
            if not _LABEL.match(value):
                raise RefusedError(400, f"label {value!r}")
        base64.b64decode(body["user-data"], validate=True)
        family = types[body["instance-type"]["id"]]["family"]
        used, limit = self.cloud.quotas.get(family, (0, -1))
        if 0 <= limit <= used:
            raise RefusedError(409, "quota exceeded")
        refused = self.cloud.create_fails
        if zone in self.cloud.full_zones:
            refused = "absent"
        if refused == "409":
            raise RefusedError(409, "no capacity")
        one = self.cloud.add(zone, body)
        if refused == "error":
            one.forced = "error"
            return self._operation(one.id, "unavailable")
        if refused == "absent":
            one.gone_at = self.cloud.now()
            return self._operation(one.id, "unavailable")
        return self._operation(one.id)

    def _update_instance(self, zone: str, ids: list[str], body: Any, _q: Any) -> Answer:
        one = self._ours(zone, ids[0], "update")
        one.body |= body
        return self._operation(one.id)

    def _delete_instance(self, zone: str, ids: list[str], _b: Any, _q: Any) -> Answer:
        one = self._ours(zone, ids[0], "delete")
        if one.gone_at is None:
            one.gone_at = self.cloud.now() + self.cloud.timing.leave_s
        return self._operation(one.id)

    def _stop_instance(self, zone: str, ids: list[str], _b: Any, _q: Any) -> Answer:
        one = self._ours(zone, ids[0], "stop")
        if self.cloud.state(one) != "running":
            raise RefusedError(409, "not running")
        one.stopped_at = self.cloud.now() + self.cloud.timing.leave_s
        return self._operation(one.id)

    def _start_instance(self, zone: str, ids: list[str], _b: Any, _q: Any) -> Answer:
        one = self._ours(zone, ids[0], "start")
        if self.cloud.state(one) != "stopped":
            raise RefusedError(409, "not stopped")
        refused = self.cloud.start_fails
        if refused is not None and refused.isdecimal():
            raise RefusedError(int(refused), "no capacity")
        if refused is not None:
            return self._operation(one.id, refused)
        one.stopped_at = None
        one.boots_at = self.cloud.now() + self.cloud.timing.boot_s
        return self._operation(one.id)

    def _ours(self, zone: str, instance_id: str, what: str) -> FakeInstance:
        one = self._instance(zone, instance_id)
        if one.labels.get("managed-by") != "ollama-proxy":
            self.cloud.touched.append(f"{what} of a stranger's {one.id}")
        return one

    def _list_events(self, _z: str, _i: Any, _b: Any, _q: Any) -> Answer:
        return self.cloud.shown_events()

    def _list_security_groups(self, _z: str, _i: Any, _b: Any, _q: Any) -> Answer:
        return {"security-groups": list(self.cloud.groups.values())}

    def _get_security_group(self, _z: str, ids: list[str], _b: Any, _q: Any) -> Answer:
        if ids[0] not in self.cloud.groups:
            raise RefusedError(404, "Not Found")
        group: dict[str, Any] = self.cloud.groups[ids[0]]
        return group

    def _create_security_group(self, _z: str, _i: Any, body: Any, _q: Any) -> Answer:
        group = {"id": new_id(), "rules": []} | body
        self.cloud.groups[group["id"]] = group
        return self._operation(group["id"])

    def _delete_security_group(
        self, _z: str, ids: list[str], _b: Any, _q: Any
    ) -> Answer:
        self._get_security_group(_z, ids, _b, _q)
        users = [i for i in self.cloud.instances.values() if self._uses_groups(i)]
        for one in users:
            if {"id": ids[0]} in one.body.get("security-groups", []):
                raise RefusedError(409, "in use by virtual machines")
        del self.cloud.groups[ids[0]]
        return self._operation(ids[0])

    def _uses_groups(self, one: FakeInstance) -> bool:
        lately = self.cloud.now() - self.cloud.timing.group_lag_s
        return self.cloud.exists(one) or (one.gone_at or 0.0) > lately

    def _add_rule_to_security_group(
        self, _z: str, ids: list[str], body: Any, _q: Any
    ) -> Answer:
        rule = {"id": new_id()} | {k: body[k] for k in _RULE_KEYS if k in body}
        self.cloud.groups[ids[0]]["rules"].append(rule)
        return self._operation(ids[0])

    def _delete_rule_from_security_group(
        self, _z: str, ids: list[str], _b: Any, _q: Any
    ) -> Answer:
        rules = self.cloud.groups[ids[0]]["rules"]
        rules[:] = [rule for rule in rules if rule["id"] != ids[1]]
        return self._operation(ids[0])


def _without_ours(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a list that lost the page with ours, and has those of strangers."""
    return {
        name: [one for one in items if not one.get("labels", {}).get("owner")]
        for name, items in answer.items()
    }


_SHAPES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no-reference": lambda answer: answer | {"reference": None},
    "empty": lambda answer: {name: [] for name in answer},
    "page-lost": _without_ours,
}
"""Answers that are not as they should be, by the fault's name."""


@contextlib.asynccontextmanager
async def exoscale_server(cloud: FakeExoscale) -> AsyncIterator[ExoscaleServer]:
    """Serve a fake Exoscale; at the end nothing was done that is not described."""
    fake = ExoscaleServer(cloud)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}/{{zone}}/v2"
    try:
        yield fake
    finally:
        fake.closing.set()
        await runner.cleanup()
    assert not fake.violations, fake.violations
    assert not cloud.touched, cloud.touched
