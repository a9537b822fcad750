"""Setbacks that a careful reader found: each cost money, or an app, before."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest
from aiohttp import web

from ollama_proxy.backends.base.guard_client import GuardClient
from ollama_proxy.backends.ovh.cli import CliDriver
from ollama_proxy.base.errors import (
    BackendError,
    CredentialsError,
    SpecError,
    StoreError,
)
from ollama_proxy.core.http.headers import GUARD_TOKEN
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase, Upstream
from ollama_proxy.fleet.sweeper import sweep
from ollama_proxy.store.memory import MemoryNotes, MemoryStore
from ollama_proxy.upstream.endpoint import Link
from tests.backends.ovh.rig import IMAGE, Rig, ovh_rig
from tests.fakes.ovh.cloud import Timing

LAUNCH = LaunchId("l0123456789abcdef")


async def run(rig: Rig, launch_id: LaunchId, **settings: object) -> None:
    """Let a launch begin, run and end."""
    backend = rig.open(**settings)
    await backend.start(launch_id)
    async with asyncio.timeout(5):
        while (await backend.inspect(launch_id)).phase is not Phase.RUNNING:
            await asyncio.sleep(0.01)
        await backend.stop(launch_id)
        while (await backend.inspect(launch_id)).phase is not Phase.GONE:
            await asyncio.sleep(0.01)
    await backend.aclose()


async def test_a_region_that_is_down_stops_no_start_elsewhere(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open(
            fallback_regions="BHS", region_tokens={"BHS": "revoked-token-0003"}
        )
        await backend.start(LAUNCH)
        owned = await backend.owned()
        await backend.stop(LAUNCH)
        await backend.aclose()

        assert (rig.cloud.made, set(owned)) == (1, {LAUNCH})


async def test_a_deployment_that_moved_needs_no_token_of_where_it_was(
    tmp_path: Path,
) -> None:
    async with ovh_rig(tmp_path) as rig:
        await run(rig, LAUNCH)
        await run(rig, LaunchId("l2"), region="BHS", gpu_model="L40S")

        assert [app.region for app in rig.cloud.apps.values()] == ["GRA", "BHS"]


@pytest.mark.parametrize(
    "script",
    [
        {"stop": ["502", "lost-before"]},
        {"get": ["500", "500", "html-404"]},
        {"create": ["lost-after"]},
        {"stop": ["html-502-after"]},
    ],
)
async def test_a_deployment_that_meets_faults_leaves_nothing_running(
    tmp_path: Path, script: dict[str, list[str]]
) -> None:
    async with ovh_rig(tmp_path, timing=Timing(stop_s=0.05)) as rig:
        rig.server.script = script
        backend = rig.open(image=None)
        async with asyncio.timeout(20):
            try:
                _ = [step async for step in backend.deploy(IMAGE)]
            except BackendError:
                hastened = rig.clock
                hastened.ahead_s += 200.0
        await backend.aclose()

        assert rig.cloud.paid == []


async def test_a_deployment_of_what_is_in_use_makes_nothing(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open()
        await backend.start(LAUNCH)
        told = [step async for step in backend.deploy(IMAGE)]
        await backend.stop(LAUNCH)
        await backend.aclose()

        assert rig.cloud.made == 1
        assert "RUNNING" in told[-1]


async def test_an_image_that_the_settings_contradict_is_not_deployed(
    tmp_path: Path,
) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open()
        with pytest.raises(SpecError, match="OVH_IMAGE is"):
            _ = [step async for step in backend.deploy("registry.example/other:1")]
        await backend.aclose()

        assert rig.cloud.made == 0


async def test_an_app_that_was_deleted_meanwhile_is_made_again(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path) as rig:
        await run(rig, LAUNCH)
        rig.cloud.timing.lag_s = 30.0
        (app,) = rig.cloud.apps.values()
        rig.clock.ahead_s += 100.0
        app.changes.append((rig.cloud.now(), "delete"))
        backend = rig.open()
        for _ in range(3):
            try:
                await backend.start(LaunchId("l2"))
            except BackendError:
                rig.clock.ahead_s += 40.0
        made = rig.cloud.made
        rig.cloud.timing.lag_s = 0.0
        await backend.stop(LaunchId("l2"))
        await backend.aclose()

        assert made == 2


async def test_one_app_that_cannot_be_stopped_spares_no_other(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path) as rig:
        first, second = rig.open(), rig.open("somebodyelse")
        await first.start(LAUNCH)
        await second.start(LaunchId("l2"))
        rig.clock.ahead_s += 4000.0
        rig.server.script["stop"] = ["500"]
        with pytest.raises(BackendError):
            await first.sweep_expired(dry_run=False)
        left = len(rig.cloud.paid)
        await first.sweep_expired(dry_run=False)
        for backend in (first, second):
            await backend.aclose()

        assert left == 1
        assert rig.cloud.paid == []


async def test_an_expired_app_with_an_error_is_deleted(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open()
        await backend.start(LAUNCH)
        (app,) = rig.cloud.paid
        app.forced = "ERROR"
        rig.clock.ahead_s += 4000.0
        await backend.sweep_expired(dry_run=False)
        await backend.aclose()

        assert rig.cloud.paid == []


async def test_what_is_removed_is_waited_for_though_no_list_shows_it(
    tmp_path: Path,
) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open()
        rig.cloud.timing.lag_s = 30.0
        await backend.start(LAUNCH)
        removing = asyncio.ensure_future(_all(backend.remove()))
        async with asyncio.timeout(10):
            while not removing.done():
                rig.clock.ahead_s += 5.0
                await asyncio.sleep(0.02)
        await backend.aclose()

        assert removing.result()[-1] == "nothing of this deployment is left"
        assert rig.cloud.paid == []


async def _all(steps: object) -> list[str]:
    return [step async for step in steps]  # type: ignore[attr-defined]  # a generator


async def test_the_lease_is_renewed_before_the_guard_is_heard(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path) as rig:
        rig.cloud.full = {"GRA"}
        backend = rig.open(lease="10m")
        await backend.start(LAUNCH)
        (app,) = rig.cloud.paid
        before = int(app.labels["ollama-proxy-lease"])
        rig.clock.ahead_s += 400.0
        await backend.renew(LAUNCH, serves=False)
        after = int(app.labels["ollama-proxy-lease"])
        await backend.stop(LAUNCH)
        await backend.aclose()

        assert after - before >= 399


async def test_a_full_disk_silences_no_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open()
        await backend.start(LAUNCH)
        async with asyncio.timeout(5):
            while (await backend.inspect(LAUNCH)).phase is not Phase.RUNNING:
                await asyncio.sleep(0.01)

        def full(*_args: object) -> None:
            raise StoreError("disk full")

        monkeypatch.setattr(MemoryNotes, "put_note", full)
        await backend.renew(LAUNCH, serves=True)
        (guest,) = rig.guests.inside.values()
        heard = guest.heartbeats
        await backend.stop(LAUNCH)
        await backend.aclose()

        assert heard == 1


async def test_the_guards_token_follows_no_redirect() -> None:
    told: list[str | None] = []

    async def elsewhere(request: web.Request) -> web.Response:
        told.append(request.headers.get(GUARD_TOKEN))
        return web.Response(text="log in")

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound(f"http://localhost:{request.url.port}/elsewhere")

    app = web.Application()
    app.router.add_get("/elsewhere", elsewhere)
    app.router.add_get("/-/stage", redirect)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    guard = GuardClient()
    link = Link("t", headers={GUARD_TOKEN: "secret"}, is_marked=True)
    sight = await guard.look(
        Upstream(f"http://127.0.0.1:{runner.addresses[0][1]}", link)
    )
    await guard.aclose()
    await runner.cleanup()
    await asyncio.sleep(0.01)  # the server's side closes in a later turn of the loop

    assert sight.stage is None
    assert told == []


async def test_a_log_in_that_ran_out_is_copied_again_once_it_is_renewed(
    tmp_path: Path,
) -> None:
    async with ovh_rig(tmp_path, "cli") as rig:
        rig.command.wanted_context = "new"
        user = tmp_path / "user"
        folder = user / ".config/ovhai"
        folder.mkdir(parents=True)
        context = folder / "context.json"
        context.write_text("old")
        home = tmp_path / "own"
        driver = CliDriver(
            "GRA",
            program=str(rig.program),
            home=home,
            template=user,
            environment=os.environ,
        )
        with pytest.raises(CredentialsError):
            await driver.apps()
        context.write_text("new")
        config = folder / "config.json"
        config.write_text('{"current": "BHS"}')
        for file in (context, config):
            os.utime(file, (2e9, 2e9))
        stranger = rig.cloud.stranger("GRA")
        apps = await driver.apps()
        await driver.aclose()

        assert [app.id for app in apps] == [stranger.id]


async def test_nothing_is_said_to_be_gone_from_a_region_that_is_silent(
    tmp_path: Path,
) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open(
            fallback_regions="BHS", region_tokens={"BHS": "revoked-token-0003"}
        )
        with pytest.raises(BackendError):
            async with asyncio.timeout(5):
                await _all(backend.remove())
        with pytest.raises(BackendError):
            await backend.inspect(LaunchId("app-0"))
        await backend.aclose()


async def test_a_lost_creation_that_is_stopped_is_gone_without_delay(
    tmp_path: Path,
) -> None:
    async with ovh_rig(tmp_path) as rig:
        rig.server.script["create"] = ["lost-after"]
        backend = rig.open()
        with pytest.raises(BackendError):
            await backend.start(LAUNCH)
        await backend.stop(LAUNCH)
        seen = await backend.inspect(LAUNCH)
        await backend.aclose()

        assert seen.phase is Phase.GONE
        assert rig.cloud.paid == []


async def test_a_deployment_whose_teller_leaves_stops_its_app(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open(image=None)
        steps = backend.deploy(IMAGE)
        await anext(steps)
        starting = asyncio.ensure_future(anext(steps))
        async with asyncio.timeout(5):
            while not rig.cloud.made:
                await asyncio.sleep(0.001)
        starting.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait({starting})
        await backend.aclose()

        assert rig.cloud.paid == []


@pytest.mark.parametrize("token", [None, "revoked-token-0003"])
async def test_a_region_that_refuses_the_token_keeps_no_stray_elsewhere_running(
    tmp_path: Path, token: str | None
) -> None:
    async with ovh_rig(tmp_path) as rig:
        more: dict[str, object] = {"region": "BHS", "gpu_model": "L40S"}
        if token is None:
            await run(rig, LaunchId("l000000000000000a"))
        else:
            more |= {"fallback_regions": "GRA", "region_tokens": {"GRA": token}}
        moved = rig.open(**more)
        stray = LaunchId("l000000000000000b")
        await moved.start(stray)
        store = MemoryStore()
        began = Transition(0.0, "0", stray, "cold", "starting", "Wake", None)
        store.transitions.append(began)
        with contextlib.suppress(BackendError):  # raised after the others were stopped
            await sweep(moved, store, now=rig.clock.wall())
        await asyncio.sleep(0.05)
        await moved.aclose()

        assert rig.cloud.paid == []
