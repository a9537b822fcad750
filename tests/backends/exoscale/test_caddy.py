"""Our Caddyfile in a real Caddy, before the simulator."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from ollama_proxy.backends.base.guard_client import GuardClient
from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import TransientError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Observation, Phase, Upstream
from ollama_proxy.simulator.server import (
    SIMULATOR,
    Manners,
    Simulator,
    build_simulator,
)
from ollama_proxy.upstream.certificates import Authority
from ollama_proxy.upstream.endpoint import Link, connection_options, credentials
from tests.fakes.exoscale.caddy import heartbeat_socket, run_caddy
from tests.ports import held_port
from tests.proxy import lines, running_proxy
from tests.virtual_time import SetClock

CADDYFILE = Path(__file__).parents[3] / "cloud-init" / "exoscale" / "Caddyfile"
LAUNCH = LaunchId("l0123456789abcdef")

pytestmark = pytest.mark.skipif(
    shutil.which("caddy") is None, reason="there is no `caddy` on the PATH"
)


@dataclass(slots=True)
class Instance:
    """An instance's inside, with the real guard before it."""

    upstream: Upstream
    behind: str
    simulator: Simulator
    run: Path


@pytest.fixture
def date() -> float:
    """The date by which the certificate of the instance is made."""
    return SystemClock().wall()


@pytest.fixture
async def instance(tmp_path: Path, date: float) -> AsyncIterator[Instance]:
    run, link = tmp_path / "run/ollama-proxy", tmp_path / "link"
    for folder in (run, link, tmp_path / "proc"):
        folder.mkdir(parents=True)
    (run / "stage").write_text("driver\n")
    (tmp_path / "proc/uptime").write_text("77.00 1.00\n")
    authority = Authority(tmp_path / "authority", SetClock(date))
    issued = authority.issue(LAUNCH)
    (link / "server.crt").write_text(issued.certificate)
    (link / "server.key").write_text(issued.key)
    app = build_simulator(Manners(rate=40.0), models=["tiny"])
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = held_port()  # our Caddyfile must name one
    process = await run_caddy(
        CADDYFILE,
        port=port,
        ollama_port=runner.addresses[0][1],
        folder=tmp_path,
        token=authority.token(LAUNCH),
    )
    upstream = Upstream(f"https://127.0.0.1:{port}", authority.link(LAUNCH))
    guard = GuardClient()
    try:
        async with heartbeat_socket(run):
            async with asyncio.timeout(20):
                while (await guard.look(upstream)).stage is None:
                    assert process.returncode is None, "Caddy refused our Caddyfile"
                    await asyncio.sleep(0.05)
            behind = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield Instance(upstream, behind, app[SIMULATOR], run)
    finally:
        await guard.aclose()
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await runner.cleanup()


async def ask(
    instance: Instance, path: str, *, token: str | None = None, **options: object
) -> tuple[int, bytes]:
    link = instance.upstream.link
    headers = credentials(link) if token is None else {"Authorization": token}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            instance.upstream.url + path,
            headers=headers,
            json={"model": "tiny", "prompt": "hi"},
            **connection_options(link),
        ) as answer,
    ):
        return answer.status, await answer.read()


async def fetch(instance: Instance, path: str) -> tuple[int, str, bytes]:
    link = instance.upstream.link
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            URL(instance.upstream.url + path, encoded=True),
            headers=credentials(link),
            **connection_options(link),
        ) as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.read()


class Guarded(StaticBackend):
    """Points every launch at the guard of an instance."""

    def __init__(self, upstream: Upstream) -> None:
        super().__init__(upstream.url)
        self._upstream = upstream

    async def inspect(self, launch_id: LaunchId) -> Observation:
        del launch_id
        return Observation(Phase.RUNNING, self._upstream)


async def test_an_ollama_that_breaks_off_behind_the_guard_is_no_success(
    instance: Instance, tmp_path: Path
) -> None:
    backend = Guarded(instance.upstream)
    async with running_proxy(tmp_path / "state", backend=backend) as proxy:
        await proxy.until(lambda: proxy.state == "ready")
        async with proxy.session.post(
            f"{proxy.url}/api/generate",
            json={"model": "tiny", "prompt": "hi"},
            headers={"X-Simulator-Fault": "reset-after=3"},
        ) as answer:
            told = lines(await answer.read())

    assert len(told) == 4
    assert told[-1] == {"error": "the instance was lost in the middle of the answer"}


@pytest.mark.parametrize("date", [60.0])
async def test_a_guard_whose_certificate_was_made_in_1970_is_spoken_to(
    instance: Instance,
) -> None:
    status, _ = await ask(instance, "/api/generate")

    assert status == 200


TOLD = ["/-/stage", "/-/stages", "/-/report", "/-/driver"]


@pytest.mark.parametrize(
    "path", [*TOLD, "/-/log/driver", "/api/generate", "/-/heartbeat", "/"]
)
@pytest.mark.parametrize("token", ["", "Bearer wrong", "Basic eDp4"])
async def test_nobody_gets_in_without_the_token(
    instance: Instance, path: str, token: str
) -> None:
    status, _ = await ask(instance, path, token=token)

    assert status == 401
    assert instance.simulator.counters.requests == {}
    assert not (instance.run / "heartbeat").exists()


async def test_the_guard_tells_the_stage_and_takes_heartbeats(
    instance: Instance,
) -> None:
    guard = GuardClient()
    stage = (await guard.look(instance.upstream)).stage
    await guard.renew(instance.upstream)
    await guard.aclose()

    assert stage == "driver"
    assert (instance.run / "heartbeat").read_text() == "77\n"


@pytest.mark.parametrize("path", TOLD)
async def test_the_guard_tells_what_the_installation_wrote_and_404_before(
    instance: Instance, path: str
) -> None:
    file = instance.run / path.removeprefix("/-/")
    file.unlink(missing_ok=True)
    before = await fetch(instance, path)
    file.write_text("driver 12\n<b>\n")
    after = await fetch(instance, path)

    assert before[0] == 404
    assert after == (200, "text/plain; charset=utf-8", b"driver 12\n<b>\n")
    assert instance.simulator.counters.requests == {}


async def test_the_guard_tells_the_end_of_what_a_step_has_said_so_far(
    instance: Instance,
) -> None:
    (instance.run / "log").mkdir()
    (instance.run / "log/driver").write_text("Get: 1\n" * 9000 + "the last line\n")
    (instance.run / "log/guard").write_text("")
    guard = GuardClient()
    said = await guard.log_of(instance.upstream, "driver")
    with pytest.raises(TransientError, match="/-/log/none with 404"):
        await guard.log_of(instance.upstream, "none")
    await guard.aclose()

    assert len(said) == 8192
    assert said.endswith(b"the last line\n")


@pytest.mark.parametrize(
    "path",
    [
        "/-/heartbeat.sock",
        "/-/../stage",
        "/-/log/",
        "/-/log",
        "/-/choices",
        "/-/log/../choices",
        "/-/log/%2e%2e/choices",
        "/-/log/..%2fchoices",
    ],
)
async def test_the_guard_tells_nothing_else_of_its_folder(
    instance: Instance, path: str
) -> None:
    (instance.run / "log").mkdir()
    (instance.run / "log/driver").write_text("a line\n")
    (instance.run / "choices").write_text("a line\n")
    _, _, body = await fetch(instance, path)

    assert b"a line" not in body
    assert b"driver" not in body


async def test_tokens_pass_one_by_one(instance: Instance) -> None:
    loop = asyncio.get_running_loop()
    link = instance.upstream.link
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{instance.upstream.url}/api/generate",
            headers=credentials(link),
            json={"model": "tiny", "prompt": "hi", "options": {"num_predict": 20}},
            **connection_options(link),
        ) as answer,
    ):
        arrivals = [loop.time() async for _ in answer.content]

    assert len(arrivals) == 21
    assert arrivals[-1] - arrivals[0] > 0.3


async def test_a_client_that_leaves_is_noticed_behind_the_guard(
    instance: Instance,
) -> None:
    asking = asyncio.ensure_future(ask(instance, "/api/generate"))
    counters = instance.simulator.counters
    async with asyncio.timeout(5):
        while not counters.in_flight:
            await asyncio.sleep(0.01)
        asking.cancel()
    async with asyncio.timeout(10):
        while not counters.cancelled:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", ["/api/generate", "/api/show", "/api/none"])
async def test_an_answer_has_the_headers_that_ollama_gave_it(
    instance: Instance, path: str
) -> None:
    async def headers(url: str, link: Link | None) -> dict[str, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                url + path,
                headers=credentials(link),
                json={"model": "tiny", "prompt": "hi"},
                **connection_options(link),
            ) as answer,
        ):
            return {n: v for n, v in answer.headers.items() if n != "Date"}

    straight = await headers(instance.behind, None)

    assert await headers(instance.upstream.url, instance.upstream.link) == straight
