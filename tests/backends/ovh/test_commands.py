"""What a user types to set an app up, against the strict fakes."""

import asyncio
from subprocess import CompletedProcess

import pytest

from ollama_proxy.core.lifecycle.record import LaunchId, Record
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.backends.ovh.rig import IMAGE, Rig
from tests.black_box import run_cli
from tests.fakes.ovh.server import AI_TOKEN, CALL_TOKEN
from tests.ports import address_of_nobody


async def typed(rig: Rig, *words: str, **more: str) -> "CompletedProcess[str]":
    """Run the command line while the fakes answer."""
    env = {
        "OLLAMA_HOST": address_of_nobody(),
        "OLLAMA_PROXY_STATE_DIR": str(rig.folder / "state"),
        "OVH_AI_API_URL": f"{rig.server.url}/{{region}}",
        "OVH_DRIVER": rig.driver,
    }
    env |= (
        {"OVH_AI_CALL_TOKEN": CALL_TOKEN, "OVHAI_BIN": str(rig.program)}
        if rig.driver == "cli"
        else {"OVH_AI_TOKEN": AI_TOKEN}
    )
    return await asyncio.to_thread(run_cli, *words, **(env | more))


async def test_an_app_is_deployed_shown_and_deleted(rig: Rig) -> None:
    made = await typed(rig, "deploy", IMAGE)
    shown = await typed(rig, "status")
    refused = await typed(rig, "delete")
    there = len(rig.cloud.apps)
    gone = await typed(rig, "delete", "--yes")

    assert (made.returncode, gone.returncode) == (0, 0), made.stderr + gone.stderr
    assert "l4-1-gpu, STOPPED, http://" in made.stdout.splitlines()[-1]
    assert "l4-1-gpu, STOPPED, http://" in shown.stdout
    assert (refused.returncode, there) == (2, 1)
    assert gone.stdout.splitlines()[-1] == "nothing of this deployment is left"
    assert not [app for app in rig.cloud.apps.values() if rig.cloud.is_there(app)]


async def test_stop_without_a_proxy_stops_what_runs(rig: Rig) -> None:
    await typed(rig, "deploy", IMAGE)
    (app,) = rig.cloud.apps.values()
    app.changes.append((rig.cloud.now(), "start"))
    running = len(rig.cloud.paid)
    stopped = await typed(rig, "stop")
    again = await typed(rig, "stop")

    assert running == 1
    assert stopped.stdout.startswith("stopped deployed")
    assert again.stdout == "no proxy runs, and nothing of ours does\n"
    assert rig.cloud.paid == []


async def test_what_was_stopped_by_hand_binds_the_folder_no_more(rig: Rig) -> None:
    await typed(rig, "deploy", IMAGE)
    store = SqliteStore(rig.folder / "state")
    store.put("default/0/ovh", Record(launch_id=LaunchId("l1")), None)
    store.close()
    other = {"OLLAMA_PROXY_BACKEND": "local", "OVH_AI_TOKEN": "", "OVH_DRIVER": "auto"}
    refused = await typed(rig, "check", **other)
    await typed(rig, "stop")
    taken = await typed(rig, "check", OLLAMA_PROXY_SIMULATOR="always", **other)

    assert refused.returncode == 2
    assert "for the offer 'ovh' of the backend 'ovh'" in refused.stderr
    assert taken.returncode == 0


@pytest.mark.parametrize("command", ["check", "sweep"])
async def test_a_log_in_that_fails_is_one_sentence(rig: Rig, command: str) -> None:
    rig.server.always = {"me": "401", "list": "401"}
    done = await typed(rig, command)

    told = done.stdout + done.stderr
    assert done.returncode == 1
    assert "one that manages apps has the role operator" in told
    assert "Traceback" not in told
