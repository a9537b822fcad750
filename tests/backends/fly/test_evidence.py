"""The report on a machine that ended: its events, in plain words, and no secret."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.backends.fly.evidence import (
    events_in,
    evidence,
    evidence_of,
)
from ollama_proxy.backends.fly.machines import Machine
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Observation, Phase, SupportsReport
from ollama_proxy.fleet.reports import LONGEST
from tests.backends.fly.rig import Rig, fly_rig
from tests.proxy import generate, running_proxy

LAUNCH, NEXT = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")
MACHINE = Machine("148e1", state="stopped", region="fra")
START = {"type": "start", "status": "started", "source": "user", "timestamp": 1000}

pytestmark = pytest.mark.usefixtures("without_pace")


def exit_event(code: int = 0, *, at: int = 2000, **told: object) -> dict[str, Any]:
    said = {"exit_code": code, "guest_signal": -1, "signal": -1} | told
    request = {"exit_event": said, "restart_count": 0}
    return {"type": "exit", "source": "flyd", "timestamp": at, "request": request}


def stop_event(source: str) -> dict[str, Any]:
    return {"type": "stop", "status": "stopping", "source": source, "timestamp": 1500}


async def until_it_runs(rig: Rig, **settings: object) -> Any:
    backend = rig.open(**settings)
    await backend.start(LAUNCH)
    async with asyncio.timeout(10):
        while (await backend.inspect(LAUNCH)).phase is not Phase.RUNNING:
            await asyncio.sleep(0.01)
    return backend


@pytest.mark.parametrize(
    ("events", "says"),
    [
        (
            [START, exit_event(137, oom_killed=True)],
            "ran out of memory (exit code 137)",
        ),
        ([START, exit_event(137, oom_killed=True)], "FLY_VM_MEMORY"),
        ([START, exit_event(64)], "its program ended (exit code 64); `fly logs`"),
        ([START, exit_event(signal=11)], "(exit code 0, signal 11, SIGSEGV)"),
        ([START, exit_event(guest_signal=200)], "(exit code 0, signal 200)"),
        ([START, exit_event()], "it ended by itself (exit code 0), as it does when"),
        (
            [START, stop_event("user"), exit_event(143, requested_stop=True)],
            "it was stopped by somebody",
        ),
        (
            [START, stop_event("fly-proxy"), exit_event(requested_stop=True)],
            "by Fly (fly-proxy), as it does if nobody is connected (FLY_AUTOSTOP)",
        ),
        (
            [START, exit_event(requested_stop=True)],
            "by Fly, as it does if nobody is connected",
        ),
        (
            [START, {"request": {"MonitorEvent": exit_event(3)["request"]}}],
            "exit code 3",
        ),
        (
            [
                START,
                {"type": "launch", "request": {"error": "failed to pull\nimage x"}},
            ],
            "Fly says: failed to pull image x",
        ),
    ],
)
def test_why_a_machine_ended_is_said_in_words(
    events: list[dict[str, Any]], says: str
) -> None:
    assert says in evidence(MACHINE, events).why


def test_an_end_of_an_earlier_run_is_not_taken_for_this_ones() -> None:
    told = evidence(MACHINE, [START, exit_event(1), START | {"timestamp": 3000}])

    assert told.why == ""
    assert "exit code 1" in told.report


def test_a_report_is_bounded_and_ends_with_the_newest_event() -> None:
    events = [exit_event(number, at=number) for number in range(100)]
    told = evidence(MACHINE, [one | {"source": "x" * 5000} for one in events])
    lines = told.report.splitlines()

    assert lines[0] == "machine 148e1 in fra: state 'stopped'"
    assert "exit code 99" in lines[-1]
    assert len(lines) == 40
    assert len(told.report.encode()) <= LONGEST


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "request",
                    "exit_event",
                    "MonitorEvent",
                    "timestamp",
                    "error",
                    "exit_code",
                    "signal",
                    "source",
                    "status",
                    "oom_killed",
                ]
            ),
            inner,
        )
    ),
)


@given(JSON)
def test_events_may_be_anything(events: object) -> None:
    told = evidence(MACHINE, events_in(events))

    assert len(told.report.encode("utf-8", "replace")) <= LONGEST
    assert len(told.report.split("\n")) <= 40
    assert "\n" not in told.why


@pytest.mark.parametrize("outlive", [True, False])
async def test_of_a_machine_that_is_gone_the_events_or_the_last_look_are_told(
    rig: Rig, outlive: bool
) -> None:
    rig.cloud.events_outlive = outlive
    backend = await until_it_runs(rig, idle_action="destroy")
    rig.cloud.exits(rig.cloud.machines()[0], 1)
    seen: Observation = await backend.inspect(LAUNCH)
    await backend.aclose()

    assert seen.phase is Phase.GONE
    assert ("its program ended (exit code 1)" in seen.detail) == outlive
    assert ("it is not there any more" in seen.report) != outlive
    assert "start started by user" in seen.report


async def test_of_a_machine_that_a_new_process_never_saw_the_lack_is_told(
    rig: Rig,
) -> None:
    await (await until_it_runs(rig, idle_action="destroy")).aclose()
    rig.cloud.exits(rig.cloud.machines()[0], 1)
    backend = rig.open(idle_action="destroy")
    seen = await backend.inspect(LAUNCH)
    await backend.aclose()

    assert (seen.phase, seen.detail) == (Phase.GONE, "")
    assert "its events could not be fetched: " in seen.report


@pytest.mark.parametrize("idle_action", ["stop", "destroy"])
async def test_a_machine_that_ran_out_of_memory_says_so_and_shows_its_events(
    rig: Rig, idle_action: str
) -> None:
    rig.cloud.timing.destroyed_s = 60.0
    backend = await until_it_runs(rig, idle_action=idle_action)
    (machine,) = rig.cloud.machines()
    rig.cloud.exits(machine, 137, oom_killed=True)
    seen: Observation = await backend.inspect(LAUNCH)
    await backend.aclose()

    assert seen.phase is Phase.GONE
    assert seen.detail.startswith("the machine has ended: it ran out of memory")
    assert "exit stopped by flyd: exit code 137, out of memory" in seen.report
    assert "launch created by flyd" in seen.report
    assert machine.environment["GUARD_TOKEN"] not in seen.report


async def test_events_that_are_not_shown_are_asked_for_and_their_lack_is_told(
    rig: Rig,
) -> None:
    rig.cloud.shows_events = False
    backend = await until_it_runs(rig)
    (machine,) = rig.cloud.machines()
    rig.cloud.exits(machine, 1)
    api = rig.api()
    shown = await api.machine(machine.id)
    told = await evidence_of(api, shown)
    rig.server.script["Machines_list_events"] = ["500"]
    untold = await evidence_of(api, shown)
    await api.aclose()
    await backend.aclose()

    assert "exit code 1" in told.why
    assert "its events could not be fetched: " in untold.report
    assert untold.why == ""


async def test_a_stop_that_is_meant_asks_for_no_events(rig: Rig) -> None:
    rig.cloud.shows_events = False
    backend = await until_it_runs(rig)
    await backend.stop(LAUNCH)
    seen = await backend.inspect(LAUNCH)
    await backend.aclose()

    assert (seen.phase, seen.detail, seen.report) == (Phase.GONE, "", "")
    assert "Machines_list_events" not in rig.server.calls


async def test_a_launch_that_is_given_up_has_its_machines_events(rig: Rig) -> None:
    backend = rig.open()
    assert isinstance(backend, SupportsReport)
    nothing = await backend.report(LAUNCH)
    await backend.start(LAUNCH)
    told = await backend.report(LAUNCH)
    await backend.inspect(LAUNCH)
    rig.server.script["Machines_show"] = ["500"]
    last = await backend.report(LAUNCH)
    await backend.aclose()
    fresh = rig.open()
    rig.server.script["Machines_show"] = ["500"]
    unseen = await fresh.report(LAUNCH)
    await fresh.aclose()

    assert nothing == ""
    assert told.splitlines()[0].endswith("in fra: state 'started'")
    assert "start started by user" in told
    assert last == told
    assert "nothing could be fetched of the machine: " in unseen


async def test_status_and_the_journal_tell_why_a_machine_ended(tmp_path: Path) -> None:
    async with (
        fly_rig(tmp_path, is_paced=False) as rig,
        running_proxy(tmp_path / "p", backend=rig.open(), OLLAMA_MODEL="tiny") as proxy,
    ):
        wait = {"Prefer": "wait=20"}
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(), headers=wait
        ) as answer:
            assert answer.status == 200
        rig.cloud.exits(rig.cloud.paid[0], 137, oom_killed=True)
        proxy.parts.pool.check_now()
        await proxy.until(lambda: proxy.state != "ready", within_s=10.0)
        async with proxy.session.get(f"{proxy.url}/status") as answer:
            told = await answer.text()

    assert "it ran out of memory (exit code 137)" in told
