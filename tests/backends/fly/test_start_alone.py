"""`ollama-proxy start` while no proxy runs: on record first, and it ends by itself."""

import contextlib
from functools import partial
from pathlib import Path

import pytest

from ollama_proxy.backends.fly import opening
from ollama_proxy.backends.fly.calls import AppCalls
from ollama_proxy.base.errors import StoreError
from ollama_proxy.cli.offline import stop_alone
from ollama_proxy.cli.start_alone import start_alone, started_words
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.settings import Settings
from ollama_proxy.store.sqlite.notes import SqliteBackendNotes
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.backends.fly.rig import IMAGE, UNPACED, Rig, fly_rig
from tests.backends.fly.test_deploy import typed
from tests.crashes import Death, Killed
from tests.fakes.fly.server import TOKEN
from tests.slots import slot_of

MOST_CALLS = 20
"""More calls than a start makes."""

pytestmark = pytest.mark.usefixtures("without_pace")


@pytest.fixture(autouse=True)
def unpaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands in this process keep no pace."""
    monkeypatch.setattr(
        opening, "open_backend", partial(opening.open_backend, timing=UNPACED)
    )


def settings_of(rig: Rig, **more: str) -> Settings:
    env = {
        "OLLAMA_PROXY_STATE_DIR": str(rig.folder / "state"),
        "FLY_FLAPS_BASE_URL": rig.server.url,
        "FLY_APP_URL": f"{rig.server.url}/edge/{{app}}",
        "FLY_API_TOKEN": TOKEN,
        "FLY_APP": "llm",
        "FLY_IMAGE": IMAGE,
    }
    return load_settings(env | more)


def on_record(rig: Rig) -> str | None:
    with contextlib.closing(SqliteStore(rig.folder / "state")) as store:
        record = store.get(slot_of("fly"))
    return record.launch_id if record is not None else None


async def test_a_machine_starts_without_a_proxy_and_its_end_is_told(rig: Rig) -> None:
    env = {
        "FLY_APP": "llm",
        "FLY_IMAGE": IMAGE,
        "FLY_APP_URL": f"{rig.server.url}/edge/{{app}}",
    }
    done = await typed(rig, "start", **env, FLY_PRICE_PER_HOUR="0.6")
    (machine,) = rig.cloud.paid
    launch_id = on_record(rig)
    stopped = await typed(rig, "stop", **env)

    assert done.returncode == 0, done.stderr
    assert f"launch {launch_id} runs, and no proxy keeps it" in done.stdout
    assert "it ends by itself by 20" in done.stdout
    assert "(0.6 per hour as configured, 0.21 until then)" in done.stdout  # 21 min
    assert stopped.stdout == f"stopped {launch_id}\n"
    assert machine.metadata["ollama_proxy_launch"] == launch_id
    assert (rig.cloud.paid, on_record(rig)) == ([], None)


@pytest.mark.parametrize("idle_action", ["stop", "suspend", "destroy"])
async def test_what_is_promised_is_what_the_machine_is_made_of(
    rig: Rig, idle_action: str
) -> None:
    settings = settings_of(rig, FLY_IDLE_ACTION=idle_action, FLY_DEAD_MAN_TIMEOUT="10m")
    started = await start_alone(settings, lambda _line: None)
    (machine,) = rig.cloud.paid
    await stop_alone(settings)

    assert started.ends_s == 660.0
    assert machine.environment["DEAD_MAN_S"] == "600"
    assert machine.environment["DEAD_MAN"] == "exit"
    assert machine.config["restart"] == {"policy": "no"}
    assert "ends by itself by" in started_words(started)[0]
    assert rig.cloud.paid == []


@pytest.mark.parametrize("idle_action", ["stop", "destroy"])
async def test_one_that_has_ended_by_itself_costs_its_volume_and_is_started_anew(
    rig: Rig, idle_action: str
) -> None:
    settings = settings_of(rig, FLY_IDLE_ACTION=idle_action)
    await start_alone(settings, lambda _line: None)
    rig.cloud.exits(rig.cloud.paid[0], 0)
    ended = list(rig.cloud.paid)
    await stop_alone(settings)
    await start_alone(settings, lambda _line: None)
    most, volumes = rig.cloud.most_at_once, len(rig.cloud.volumes())
    await stop_alone(settings)

    assert (ended, most, volumes) == ([], 1, 1)
    assert rig.cloud.paid == []


@pytest.mark.parametrize("idle_action", ["stop", "destroy"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_start_that_is_killed_at_any_call_is_one_machine_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, idle_action: str
) -> None:
    death = Death()
    death.watch(monkeypatch, AppCalls, "call", SqliteBackendNotes)
    for number in range(1, MOST_CALLS + 1):
        async with fly_rig(tmp_path / f"{number}", is_paced=False) as rig:
            (tmp_path / f"{number}").mkdir()
            settings = settings_of(rig, FLY_IDLE_ACTION=idle_action)
            death.plan(moment, number)
            with contextlib.suppress(Killed):
                await start_alone(settings, lambda _line: None)
            came = death.came
            death.plan(moment, 0)
            first = on_record(rig)
            for machine in rig.cloud.machines():
                machine.leased_until = 0.0  # it lasts 15 s
            await start_alone(settings, lambda _line: None)
            second, paid = on_record(rig), len(rig.cloud.paid)
            await stop_alone(settings)

            assert first is not None, number
            assert second == first, number
            assert (rig.cloud.made, rig.cloud.most_at_once, paid) == (1, 1, 1), number
            assert (rig.cloud.paid, on_record(rig)) == ([], None), number
            assert len(rig.cloud.volumes()) == 1, number
        if not came:
            return
    raise AssertionError(f"{MOST_CALLS} calls are not enough to end a start")


async def test_a_start_that_can_not_be_written_down_calls_no_cloud(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreError("the state can't be written: disk full")

    monkeypatch.setattr(SqliteStore, "reserve", full)
    with pytest.raises(StoreError, match="disk full"):
        await start_alone(settings_of(rig), print)

    assert rig.cloud.paid == []
    assert on_record(rig) is None
