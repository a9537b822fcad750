"""A hub as its users ran it before, written from the facts on it alone.

Its routes, keys, choice and errors are those of the reference on the forerunners, part
E; nothing here is taken from our own hub or agent.
"""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

_KEYS = {"node_id", "ipv4", "ipv6", "port", "models", "metadata", "load"}


@dataclass(slots=True)
class OldHub:
    """Takes beats, lists nodes, and gives jobs to the least busy node.

    Its faults: ``has_strict_keys`` (422 for a key that it does not know, in FastAPI's
    shape), ``slow_s`` (before it answers a beat), ``is_failing`` (500 to each beat).
    One that is away, or restarts, is `away` and `back`. ``answer`` is what it answers
    to a beat; a newer hub says more there.
    """

    has_strict_keys: bool = False
    slow_s: float = 0.0
    is_failing: bool = False
    port: int = 0
    answer: dict[str, Any] = field(default_factory=lambda: {"status": "ok"})
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    beats: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    _runner: web.AppRunner | None = None
    _told: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def back(self) -> None:
        """Begin, with nothing remembered, at the address it had."""
        self.nodes.clear()
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post("/nodes/heartbeat", self._beat)
        app.router.add_post("/jobs", self._job)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def away(self) -> None:
        """End: connections are refused."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def until(self, number: int = 1, within_s: float = 20.0) -> dict[str, Any]:
        """Wait for so many beats that it took; return the last one."""
        async with asyncio.timeout(within_s):
            while len(self.beats) < number:
                self._told.clear()
                await self._told.wait()
        return self.beats[-1]

    async def _beat(self, request: web.Request) -> web.Response:
        beat = await request.json()
        await asyncio.sleep(self.slow_s)
        if self.is_failing:
            return web.Response(status=500, text="Internal Server Error")
        if unknown := beat.keys() - _KEYS if self.has_strict_keys else set():
            self.refused.append(beat)
            faults = [
                {"type": "extra_forbidden", "loc": ["body", key], "msg": "Extra inputs"}
                for key in unknown
            ]
            return web.json_response({"detail": faults}, status=422)
        assert isinstance(beat["node_id"], str)
        assert isinstance(beat["port"], int)
        assert all(isinstance(name, str) for name in beat["models"])
        assert 0 <= beat["load"]["cpu"] <= 1
        assert 0 <= beat["load"]["memory"] <= 1
        self.nodes[beat["node_id"]] = beat | {"active_jobs": 0}
        self.beats.append(beat)
        self._told.set()
        return web.json_response(self.answer)

    async def _job(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        job = {
            "model": body["model"],
            "prompt": body["prompt"],
            "options": body.get("options") or {},
            "stream": body.get("stream", True),
        }
        able = [one for one in self.nodes.values() if job["model"] in one["models"]]
        able.sort(key=lambda one: (one["active_jobs"], one["load"]["cpu"]))
        if not able:
            words = "No healthy nodes available for requested model"
            return web.json_response({"detail": words}, status=503)
        errors = []
        for node in able:
            node["active_jobs"] += 1
            try:
                return await self._execute(request, node, job)
            except aiohttp.ClientResponseError as error:
                errors.append(_error(node, error.message, error.status))
            except (aiohttp.ClientError, OSError) as error:
                errors.append(_error(node, str(error), None))
            finally:
                node["active_jobs"] -= 1
        detail = {
            "message": "All candidate nodes failed to execute the job",
            "errors": errors,
            "job_id": str(uuid.uuid4()),
        }
        return web.json_response({"detail": detail}, status=503)

    async def _execute(
        self, request: web.Request, node: dict[str, Any], job: dict[str, Any]
    ) -> web.StreamResponse:
        """Ask the node at the address that it gave."""
        url = f"http://{node['ipv4']}:{node['port']}/execute"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=job) as answer,
        ):
            if answer.status != 200:
                text = await answer.text()
                raise aiohttp.ClientResponseError(
                    answer.request_info, (), status=answer.status, message=text
                )
            response = web.StreamResponse(headers={"Content-Type": answer.content_type})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


def _error(node: dict[str, Any], message: str, status: int | None) -> dict[str, Any]:
    return {"node_id": node["node_id"], "message": message, "status": status}


@contextlib.asynccontextmanager
async def old_hub(**faults: Any) -> AsyncIterator[OldHub]:
    """Run a former hub on a port of the system's choice."""
    hub = OldHub(**faults)
    await hub.back()
    try:
        yield hub
    finally:
        await hub.away()


async def run_job(hub: OldHub, **job: Any) -> tuple[int, list[dict[str, Any]]]:
    """Give a hub a job as its clients do; return the status and the lines."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{hub.url}/jobs", json=job) as answer,
    ):
        text = await answer.text()
        return answer.status, [json.loads(line) for line in text.splitlines() if line]
