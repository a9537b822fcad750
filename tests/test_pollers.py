"""Programs that look every few seconds neither wake nor keep an instance."""

from pathlib import Path

from ollama_proxy.base.clock import Clock
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy
from tests.virtual_time import SetClock

HOUR_S = 3600.0
ROUND_S = 30.0
POLLS = [
    ("GET", "/api/tags"),  # Open WebUI, Home Assistant, the desktop app
    ("GET", "/api/ps"),  # Open WebUI, Home Assistant, exporters
    ("GET", "/api/version"),  # the desktop app, health checks
    ("HEAD", "/"),  # Enchanted, the CLI
    ("GET", "/"),  # uptime monitors
    ("GET", "/v1/models"),  # OpenAI-type connections
    ("POST", "/api/show"),  # Continue, Zed
]


async def an_hour_of_polls(proxy: RunningProxy, clock: SetClock) -> None:
    for _ in range(int(HOUR_S / ROUND_S)):
        clock.moment += ROUND_S
        for method, path in POLLS:
            body = {"model": "tiny"} if method == "POST" else None
            async with proxy.session.request(
                method, f"{proxy.url}{path}", json=body
            ) as reply:
                assert reply.status == 200, path
                await reply.read()


async def test_an_hour_of_polls_launches_nothing(tmp_path: Path) -> None:
    backend, clock = InProcessBackend(), SetClock()
    as_clock: Clock = clock
    async with running_proxy(
        tmp_path, backend=backend, clock=as_clock, OLLAMA_MODEL="tiny"
    ) as proxy:
        await an_hour_of_polls(proxy, clock)

        assert backend.launches == 0


async def test_an_hour_of_polls_does_not_reset_the_idle_clock(tmp_path: Path) -> None:
    clock = SetClock()
    async with running_proxy(
        tmp_path, clock=clock, OLLAMA_PROXY_IDLE_TIMEOUT="2h", OLLAMA_MODEL="tiny"
    ) as proxy:
        await proxy.wake()
        await an_hour_of_polls(proxy, clock)
        status = await proxy.status()

        assert status["idle_for_s"] == HOUR_S
        assert status["stops_in_s"] == HOUR_S
