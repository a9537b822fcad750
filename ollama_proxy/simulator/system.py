"""Serve the simulator's routes of the server itself: version, account, counters."""

from aiohttp import web

from ollama_proxy.simulator.state import Simulator
from ollama_proxy.simulator.wire import reply

VERSION = "0.33.0"


class System:
    """Serves version and counters."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this part."""
        return [
            web.get("/", self.root),
            web.get("/api/version", self.version),
            web.get("/api/status", self.status, allow_head=False),
            web.post("/api/me", self.me),
            web.post("/api/signout", self.me),
            web.get(
                "/api/experimental/model-recommendations",
                self.recommendations,
                allow_head=False,
            ),
            web.get("/-/simulator", self.state),
        ]

    async def root(self, _request: web.Request) -> web.Response:
        """Say that it runs."""
        return web.Response(text="Ollama is running", content_type="text/plain")

    async def version(self, _request: web.Request) -> web.Response:
        """Name the version."""
        return reply({"version": VERSION})

    async def status(self, _request: web.Request) -> web.Response:
        """Tell of the cloud features."""
        return reply({"cloud": {"disabled": False, "source": "none"}})

    async def me(self, _request: web.Request) -> web.Response:
        """Know no account."""
        return reply({"error": "account unavailable"}, 503)

    async def recommendations(self, _request: web.Request) -> web.Response:
        """Recommend nothing."""
        return reply({"recommendations": []})

    async def state(self, _request: web.Request) -> web.Response:
        """Return the counters."""
        counters = self._simulator.counters
        counts = {
            "requests": counters.requests,
            "in_flight": counters.in_flight - 1,
            "working": counters.working,
            "most_working": counters.most_working,
            "cancelled": counters.cancelled,
            "loads": self._simulator.store.loads,
            "aborted_loads": self._simulator.store.aborted_loads,
        }
        return reply(counts)
