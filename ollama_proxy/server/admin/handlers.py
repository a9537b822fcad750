"""Serve the proxy's own endpoints: ``/status``, ``/healthz``, ``/metrics``, ``/-/``."""

from urllib.parse import unquote

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from ollama_proxy.base.errors import BackendError, HeldBackError
from ollama_proxy.server.raw_target import raw_path
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
    ) -> None:
        self._pools = pools
        self._status = status
        self._metrics = metrics
        self._journal = journal

    def routes(self) -> list[web.RouteDef]:
        """Return the routes; everything else belongs to Ollama."""
        return [
            web.get("/status", self.status),
            web.get("/healthz", self.health),
            web.get("/metrics", self.metrics),
            web.get("/-/journal", self.journal),
            web.post("/-/wake", self.wake),
            web.post("/-/stop", self.stop),
            web.post("/-/sweep", self.sweep),
            web.delete(f"{_PULLS}{{model:.*}}", self.end_pull),
        ]

    async def status(self, _request: web.Request) -> web.Response:
        """Return the state of the proxy."""
        return _json(self._status.body())

    async def health(self, _request: web.Request) -> web.Response:
        """Tell that the proxy works, whether or not an instance is up."""
        return _json({"status": "ok"})

    async def metrics(self, _request: web.Request) -> web.Response:
        """Give out the metrics."""
        return web.Response(
            body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def journal(self, request: web.Request) -> web.Response:
        """List the newest transitions, newest first."""
        _refuse_browsers(request)
        return _json({"transitions": self._journal.journal(_JOURNAL_ROWS)})

    async def wake(self, request: web.Request) -> web.Response:
        """Launch an instance now, whatever failed before."""
        _refuse_browsers(request)
        try:
            await self._pools.first.pool.wake(forced=True)
        except HeldBackError as error:
            return _json({"error": str(error)}, status=409)
        return _json(self._status.body())

    async def stop(self, request: web.Request) -> web.Response:
        """Stop the instance once its streams have ended."""
        _refuse_browsers(request)
        self._pools.first.pool.stop()
        return _json(self._status.body())

    async def sweep(self, request: web.Request) -> web.Response:
        """Stop our instances that no record names; ``?dry_run=1`` only lists.

        ``?stopped=1``: also delete stopped instances that are kept for the next launch.
        """
        _refuse_browsers(request)
        dry_run = request.query.get("dry_run") == "1"
        try:
            sweeper = self._pools.first.pool.sweeper
            found: list[str] = [*await sweeper.sweep(dry_run=dry_run, thorough=True)]
            if request.query.get("stopped") == "1":
                found += await sweeper.release(dry_run=dry_run)
            kept = await sweeper.idle_costs()
        except HeldBackError as error:
            return _json({"error": str(error)}, status=409)
        except (TimeoutError, BackendError) as error:
            message = f"the cloud could not be asked what is ours: {error}"
            return _json({"error": message}, status=502)
        return _json({"swept": found, "kept": kept, "dry_run": dry_run})

    async def end_pull(self, request: web.Request) -> web.Response:
        """End the pulls of a model; list those that were ended.

        The model's name may contain ``/`` and ``:``, plain or percent-encoded.
        """
        _refuse_browsers(request)
        model = unquote(raw_path(request).removeprefix(_PULLS))
        pulls = [services.pulls for services in self._pools]
        ending = [
            pull_body(pull) for under_way in pulls for pull in under_way.of(model)
        ]
        ended = [await under_way.stop(model, _ORDER) for under_way in pulls]
        if not any(ended):
            message = f"no pull of {model!r} is under way; see pulls in /status"
            return _json({"error": message}, status=404)
        return _json({"ended": ending})


def _refuse_browsers(request: web.Request) -> None:
    """Let no web page give orders: its requests carry an Origin, the CLI's don't."""
    if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
        raise web.HTTPForbidden(text="orders are not taken from web pages")


def _json(body: object, status: int = 200) -> web.Response:
    encoded = msgspec.json.encode(body) + b"\n"
    return web.Response(
        status=status,
        body=encoded,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
