"""`ollama-proxy start` while no proxy runs, against the strict fakes."""

import asyncio

import pytest

from ollama_proxy.core.lifecycle.record import State
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.backends.ovh.rig import IMAGE, Rig
from tests.backends.ovh.test_commands import typed
from tests.black_box import PROGRAM, ROOT, clean_environment
from tests.fakes.ovh.server import AI_TOKEN
from tests.ports import address_of_nobody
from tests.slots import slot_of


def on_record(rig: Rig) -> tuple[str | None, State | None, bool]:
    store = SqliteStore(rig.folder / "state")
    record = store.get(slot_of("ovh"))
    store.close()
    if record is None:
        return None, None, False
    return record.launch_id, record.state, record.accepted


async def test_an_app_starts_without_a_proxy_and_its_end_is_told(rig: Rig) -> None:
    await typed(rig, "deploy", IMAGE)
    done = await typed(rig, "start", OVH_PRICE_PER_HOUR="1.2")
    shown = await typed(rig, "status")
    launch_id, state, accepted = on_record(rig)
    running = len(rig.cloud.paid)
    stopped = await typed(rig, "stop")

    assert done.returncode == 0, done.stderr
    assert f"launch {launch_id} runs, and no proxy keeps it" in done.stdout
    assert "it ends by itself by 20" in done.stdout
    assert "(1.2 per hour as configured, 1.00 until then)" in done.stdout  # 50 min
    assert "`ollama-proxy stop` ends it now" in done.stdout
    assert (state, accepted, running) == (State.STARTING, True, 1)
    assert "RUNNING" in shown.stdout
    assert stopped.stdout == f"stopped {launch_id}\n"
    assert rig.cloud.paid == []
    assert on_record(rig)[0] is None


async def test_a_second_start_joins_the_first(rig: Rig) -> None:
    await typed(rig, "deploy", IMAGE)
    await typed(rig, "start")
    first = on_record(rig)[0]
    again = await typed(rig, "start")
    paid = len(rig.cloud.paid)
    await typed(rig, "stop")

    assert again.returncode == 0, again.stderr
    assert (on_record(rig)[0], paid) == (None, 1)
    assert f"launch {first} runs" in again.stdout
    assert rig.cloud.paid == []


async def test_what_nothing_would_end_is_not_started(rig: Rig) -> None:
    await typed(rig, "deploy", IMAGE)
    starts = rig.cloud.starts
    done = await typed(rig, "start", OVH_DEAD_MAN="off")

    assert done.returncode == 2
    assert "nothing would end what is started without a proxy" in done.stderr
    assert (rig.cloud.starts, rig.cloud.paid) == (starts, [])
    assert on_record(rig)[0] is None


async def test_a_start_that_comes_to_nothing_leaves_nothing(rig: Rig) -> None:
    done = await typed(rig, "start")  # nothing was deployed

    assert done.returncode == 1
    assert "ollama-proxy deploy IMAGE" in done.stderr
    assert (rig.cloud.made, rig.cloud.paid) == (0, [])
    assert on_record(rig)[0] is None


async def test_an_app_that_does_not_run_in_time_is_stopped(rig: Rig) -> None:
    await typed(rig, "deploy", IMAGE)
    rig.cloud.timing.queue_s = 3600.0
    done = await typed(rig, "start", OLLAMA_PROXY_START_TIMEOUT="3s")

    assert done.returncode == 1
    assert "did not run within 3 s and was stopped" in done.stderr
    assert rig.cloud.paid == []
    assert on_record(rig)[0] is None


async def test_a_lost_answer_starts_no_second_app(rig: Rig) -> None:
    if rig.driver == "cli":
        pytest.skip("the command's own faults are played in test_faults")
    await typed(rig, "deploy", IMAGE)
    rig.server.script["start"] = ["lost-after"]
    done = await typed(rig, "start")
    paid = len(rig.cloud.paid)
    await typed(rig, "stop")

    assert done.returncode == 0, done.stderr
    assert (paid, rig.cloud.made, rig.cloud.paid) == (1, 1, [])


async def test_a_backend_whose_instances_end_with_it_starts_none_alone(
    rig: Rig,
) -> None:
    env = {"OLLAMA_PROXY_BACKEND": "local", "OLLAMA_PROXY_SIMULATOR": "always"}
    done = await asyncio.wait_for(typed(rig, "start", **env), 30)

    assert done.returncode == 2
    assert "run `ollama-proxy serve`, then `ollama-proxy start`" in done.stderr


async def test_a_later_proxy_takes_the_app_over_and_ends_it_when_idle(
    rig: Rig,
) -> None:
    if rig.driver == "cli":
        pytest.skip("what is on record is the same for both drivers")
    await typed(rig, "deploy", IMAGE)
    await typed(rig, "start")
    before = (rig.cloud.made, rig.cloud.starts, len(rig.cloud.paid))
    env = clean_environment(
        OLLAMA_HOST=address_of_nobody(),
        OLLAMA_PROXY_STATE_DIR=str(rig.folder / "state"),
        OLLAMA_PROXY_IDLE_TIMEOUT="1s",
        OVH_AI_API_URL=f"{rig.server.url}/{{region}}",
        OVH_AI_TOKEN=AI_TOKEN,
        OVH_DRIVER="rest",
    )
    null = asyncio.subprocess.DEVNULL
    proxy = await asyncio.create_subprocess_exec(
        *PROGRAM, "serve", cwd=ROOT, env=env, stdout=null, stderr=null
    )
    for _ in range(150):
        if not rig.cloud.paid:
            break
        await asyncio.sleep(0.2)
    proxy.terminate()
    await proxy.wait()

    assert before[2] == 1
    assert (rig.cloud.made, rig.cloud.starts, len(rig.cloud.paid)) == (*before[:2], 0)
