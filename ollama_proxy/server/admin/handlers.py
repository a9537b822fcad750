"""Serve the proxy's own endpoints: ``/status``, ``/healthz``, ``/metrics``, ``/-/``."""

import asyncio
from urllib.parse import unquote

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from ollama_proxy.base.errors import BackendError, HeldBackError
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.server.admin.answers import json_answer, refuse_browsers
from ollama_proxy.server.caller import caller_of
from ollama_proxy.server.raw_target import raw_path
from ollama_proxy.serving.active_requests import ActiveRequests
from ollama_proxy.serving.active_view import active_body
from ollama_proxy.serving.metrics import Metrics
from ollama_proxy.serving.pool_map import PoolMap
from ollama_proxy.serving.status import Status, pull_body
from ollama_proxy.store.ports import Journal

_JOURNAL_ROWS = 50
_PULLS = "/-/pulls/"
_ORDER = "an order to the proxy"


class AdminHandlers:
    """Answers questions about the proxy, and carries out orders to it."""

    def __init__(
        self,
        *,
        pools: PoolMap,
        status: Status,
        metrics: Metrics,
        journal: Journal,
        audit: Audit,
        active: ActiveRequests,
    ) -> None:
        self._active = active
        self._pools = pools
        self._status = status
        self._metrics = metrics
        self._journal = journal
        self._audit = audit

    def routes(self) -> list[web.RouteDef]:
        """Return the routes; everything else belongs to Ollama."""
        return [
            web.get("/status", self.status),
            web.get("/healthz", self.health),
            web.get("/metrics", self.metrics),
            web.get("/-/journal", self.journal),
            web.post("/-/sweep", self.sweep),
            web.delete(f"{_PULLS}{{model:.*}}", self.end_pull),
        ]

    async def status(self, request: web.Request) -> web.Response:
        """Return the state of the proxy; administrators also get its requests."""
        body = self._status.body()
        if caller_of(request).is_admin:
            now = asyncio.get_running_loop().time()
            body["active"] = active_body(self._active, now)
        return json_answer(body)

    async def health(self, _request: web.Request) -> web.Response:
        """Tell that the proxy works, whether or not an instance is up."""
        return json_answer({"status": "ok"})

    async def metrics(self, _request: web.Request) -> web.Response:
        """Give out the metrics."""
        return web.Response(
            body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def journal(self, request: web.Request) -> web.Response:
        """List the newest transitions and lines of the audit, newest first."""
        refuse_browsers(request)
        transitions = self._journal.journal(_JOURNAL_ROWS)
        audit = self._audit.newest(_JOURNAL_ROWS)
        return json_answer({"transitions": transitions, "audit": audit})

    async def sweep(self, request: web.Request) -> web.Response:
        """Stop our instances that no record names; ``?dry_run=1`` only lists.

        ``?stopped=1``: also delete stopped instances that are kept for the next launch.
        """
        refuse_browsers(request)
        dry_run = request.query.get("dry_run") == "1"
        if not dry_run:  # written first: a cloud that fails may have stopped some
            detail = "stopped ones too" if request.query.get("stopped") == "1" else ""
            self._audit.note(caller_of(request), "sweep", detail=detail)
        try:
            found, kept = await self._sweep(request, dry_run=dry_run)
        except HeldBackError as error:
            return json_answer({"error": str(error)}, status=409)
        except (TimeoutError, BackendError) as error:
            message = f"the cloud did not list our instances: {error}"
            return json_answer({"error": message}, status=502)
        return json_answer({"swept": found, "kept": kept, "dry_run": dry_run})

    async def _sweep(
        self, request: web.Request, *, dry_run: bool
    ) -> tuple[list[str], list[str]]:
        """Sweep for every pool; what two of them find is listed once.

        Raises the error of the last pool whose cloud failed, after all had their turn.
        """
        found: dict[str, None] = {}
        kept: dict[str, None] = {}
        failure: Exception | None = None
        for services in self._pools:
            sweeper = services.pool.sweeper
            try:
                swept = await sweeper.sweep(dry_run=dry_run, thorough=True)
                found |= dict.fromkeys(map(str, swept))
                if request.query.get("stopped") == "1":
                    found |= dict.fromkeys(await sweeper.release(dry_run=dry_run))
                kept |= dict.fromkeys(await sweeper.idle_costs())
            except HeldBackError:
                raise
            except (BackendError, TimeoutError) as error:
                failure = error  # the clouds of other pools are swept all the same
        if failure is not None:
            raise failure
        return list(found), list(kept)

    async def end_pull(self, request: web.Request) -> web.Response:
        """End the pulls of a model; list those that were ended.

        The model's name may contain ``/`` and ``:``, plain or percent-encoded.
        """
        refuse_browsers(request)
        model = unquote(raw_path(request).removeprefix(_PULLS))
        pulls = [services.pulls for services in self._pools]
        ending = [
            pull_body(pull) for under_way in pulls for pull in under_way.of(model)
        ]
        ended = [await under_way.stop(model, _ORDER) for under_way in pulls]
        if not any(ended):
            message = f"no pull of {model!r} is under way; see pulls in /status"
            return json_answer({"error": message}, status=404)
        self._audit.note(caller_of(request), "pulls --end", model)
        return json_answer({"ended": ending})
