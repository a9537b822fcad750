"""Take orders about the instances of a pool: wake, stop, abandon; tell its plan."""

import structlog
from aiohttp import web

from ollama_proxy.base import log
from ollama_proxy.base.errors import HeldBackError
from ollama_proxy.core.lifecycle.events import Abandoned
from ollama_proxy.core.lifecycle.record import State
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.gateway.paid_orders import PaidOrders
from ollama_proxy.server.admin.answers import (
    json_answer,
    refuse_browsers,
    refused_order,
)
from ollama_proxy.server.caller import caller_of
from ollama_proxy.serving.pool_map import PoolMap
from ollama_proxy.serving.pool_services import PoolServices
from ollama_proxy.serving.status import Status

_UNKNOWN_OUTCOMES = frozenset({State.STARTING, State.STOPPING})


class PoolOrders:
    """Carries out orders to one pool, named by ``?pool=``, or to those that are meant.

    Without a name an instance of the first pool is launched, and those of all stopped.
    """

    def __init__(
        self, pools: PoolMap, status: Status, audit: Audit, paid: PaidOrders
    ) -> None:
        self._pools = pools
        self._paid = paid
        self._status = status
        self._audit = audit

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of these orders."""
        return [
            web.get("/-/plan", self.plan),
            web.post("/-/wake", self.wake),
            web.post("/-/stop", self.stop),
            web.post("/-/abandon", self.abandon),
        ]

    async def plan(self, request: web.Request) -> web.Response:
        """Return what each pool would do now, with its reasons."""
        refuse_browsers(request)
        told = []
        for services in self._named(request) or self._pools:
            planned, words = services.pool.plan()
            told.append(
                {
                    "name": services.name,
                    "wanted": planned.wanted,
                    "ready": services.pool.ready_count,
                    "starts": list(planned.start),
                    "drains": list(planned.drain),
                    "plan": list(words),
                }
            )
        return json_answer({"pools": told})

    async def wake(self, request: web.Request) -> web.Response:
        """Launch an instance now, whatever failed before."""
        refuse_browsers(request)
        chosen = (self._named(request) or [self._pools.first])[0]
        key = caller_of(request).key
        refusal = self._paid.refusal(key, chosen.name)
        if refusal is not None:
            return refused_order(refusal)
        try:
            with self._paid.paid_by(key, chosen.name):
                await chosen.pool.wake(forced=True)
        except HeldBackError as error:
            return json_answer({"error": str(error)}, status=409)
        self._audit.note(caller_of(request), "wake", chosen.name)
        return json_answer(self._status.body())

    async def stop(self, request: web.Request) -> web.Response:
        """Stop the instances once their streams have ended."""
        refuse_browsers(request)
        for services in self._named(request) or self._pools:
            services.pool.stop()
            self._audit.note(caller_of(request), "stop", services.name)
        return json_answer(self._status.body())

    async def abandon(self, request: web.Request) -> web.Response:
        """Wait no longer for the cloud's word on a launch; the sweep looks for it."""
        refuse_browsers(request)
        launch_id = request.query.get("launch", "")
        controller = self._controller_of(launch_id)
        if controller is None:
            message = f"no launch {launch_id!r} is on record; see pools in /status"
            return json_answer({"error": message}, status=404)
        record = controller.record
        if record.launch_id is None or record.state not in _UNKNOWN_OUTCOMES:
            message = (
                f"launch {launch_id} is {record.state.value}, so its outcome is known;"
                " give the order `stop`"
            )
            return json_answer({"error": message}, status=409)
        controller.apply(Abandoned(record.launch_id))
        self._audit.note(caller_of(request), "abandon", launch_id)
        structlog.get_logger().warning(
            log.LAUNCH_ABANDONED, launch_id=launch_id, slot=controller.slot
        )
        return json_answer(self._status.body())

    def _controller_of(self, launch_id: str) -> Controller | None:
        controllers = (one for pool in self._pools for one in pool.pool.controllers)
        return next((c for c in controllers if c.record.launch_id == launch_id), None)

    def _named(self, request: web.Request) -> list[PoolServices]:
        """Return the pool that an order names; none if it names none."""
        name = request.query.get("pool")
        if name is None:
            return []
        if name not in self._pools.names:
            known = ", ".join(self._pools.names)
            message = f"no pool is named {name!r}; there are {known}"
            raise web.HTTPNotFound(
                text=json_answer({"error": message}).text,
                content_type="application/json",
            )
        return [self._pools[name]]
