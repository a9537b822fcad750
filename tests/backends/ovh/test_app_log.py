"""The end of a failed app's own log is in the report, before the app is stopped."""

import json
from pathlib import Path

import pytest

from ollama_proxy.backends.base.timing import CloudTiming
from ollama_proxy.backends.ovh.app_log import LINES, read_log
from ollama_proxy.backends.ovh.backend import OvhBackend
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Observation, Phase
from ollama_proxy.fleet.reports import LONGEST
from tests.backends.ovh.rig import Rig, ovh_rig
from tests.fakes.ovh.cloud import FakeApp
from tests.fakes.ovh.server import AI_TOKEN

LAUNCH = LaunchId("l0123456789abcdef")


async def failed(rig: Rig, log: str) -> tuple[OvhBackend, FakeApp]:
    """Open a backend whose app has failed and left a log."""
    backend = rig.open()
    await backend.start(LAUNCH)
    await backend.inspect(LAUNCH)  # it was seen to run, and so its end is no lag
    (app,) = rig.cloud.apps.values()
    app.forced, app.replicas, app.log = "FAILED", 0, log
    return backend, app


async def seen(rig: Rig, log: str) -> Observation:
    backend, _ = await failed(rig, log)
    found = await backend.inspect(LAUNCH)
    await backend.stop(LAUNCH)
    await backend.aclose()
    assert rig.cloud.paid == []
    return found


async def test_the_last_lines_are_reported_and_no_more(rig: Rig) -> None:
    found = await seen(rig, "".join(f"line {n}\n" for n in range(100)))

    assert found.phase is Phase.FAILED
    assert found.report.splitlines() == [f"line {n}" for n in range(60, 100)]
    assert len(found.report.splitlines()) == LINES


async def test_a_line_without_an_end_is_bounded(rig: Rig) -> None:
    found = await seen(rig, "x" * 1_000_000 + "the end")

    assert len(found.report.encode()) <= LONGEST


async def test_secrets_are_not_in_it(rig: Rig) -> None:
    backend, app = await failed(rig, "")
    guard = app.environment.get("GUARD_TOKEN", "no-guard-token")
    app.log = f"env {guard}\nAuthorization: Bearer abc.def\ntoken {AI_TOKEN}\nlast"
    found = await backend.inspect(LAUNCH)
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert guard not in found.report or rig.driver == "cli"
    assert "abc.def" not in found.report
    assert AI_TOKEN not in found.report or rig.driver == "cli"
    assert found.report.endswith("last")
    assert rig.cloud.paid == []


@pytest.mark.parametrize("fault", ["500", "404", "403"])
async def test_what_can_not_be_fetched_is_told_as_such(rig: Rig, fault: str) -> None:
    rig.server.script["log"] = [fault]
    found = await seen(rig, "secret of nobody")

    assert found.phase is Phase.FAILED
    assert found.report.startswith("nothing of the app's own log could be fetched: ")


async def test_a_log_that_does_not_come_is_not_waited_for(
    rig: Rig,
) -> None:
    rig.timing = CloudTiming(app_log_s=0.2)
    rig.server.script["log"] = ["slow"]
    found = await seen(rig, "")

    assert "no answer within" in found.report


async def test_an_empty_log_is_told_as_such(rig: Rig) -> None:
    found = await seen(rig, "\n \n")

    assert found.report == "the app's own log is empty"


async def test_it_is_asked_for_once_and_before_the_app_is_stopped(rig: Rig) -> None:
    backend, _ = await failed(rig, "why")
    rig.server.calls.clear()
    first = await backend.inspect(LAUNCH)
    await backend.inspect(LAUNCH)
    await backend.stop(LAUNCH)
    await backend.inspect(LAUNCH)
    await backend.aclose()

    assert first.report == "why"
    assert rig.server.calls.count("log") == 1
    assert rig.cloud.paid == []


async def test_a_healthy_launch_and_an_ordered_stop_ask_for_no_log(rig: Rig) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    await backend.inspect(LAUNCH)
    await backend.stop(LAUNCH)
    gone = await backend.inspect(LAUNCH)
    await backend.aclose()

    assert "log" not in rig.server.calls
    assert gone.report == ""
    assert rig.cloud.paid == []


async def test_an_app_that_somebody_deleted_has_no_log_any_more(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open()
        await backend.start(LAUNCH)
        await backend.inspect(LAUNCH)
        (app,) = rig.cloud.apps.values()
        app.changes.append((rig.cloud.now(), "delete"))
        gone = await backend.inspect(LAUNCH)
        await backend.aclose()

    assert gone.phase is Phase.GONE
    assert gone.report == "the app is gone, so nothing of its own log could be fetched"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("a\nb\n", ["a", "b"]),
        (json.dumps({"logs": [{"content": "a"}, {"content": "b"}]}), ["a", "b"]),
        (json.dumps({"items": [{"message": "a\nb"}]}), ["a", "b"]),
        (json.dumps(["a", "b"]), ["a", "b"]),
        ('{"content": "a"}\n{"content": "b"}\n', ["a", "b"]),
        ("[GIN] 200\n{broken\n", ["[GIN] 200", "{broken"]),
        ('{"level": "info"}\n', ['{"level": "info"}']),
        ("[" * 100_000, ["[" * 100_000]),
        ("123\n", ["123"]),
        ("", []),
        ("null", ["null"]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_log_is_read_in_whatever_form_it_is_sent(
    sent: str, expected: list[str]
) -> None:
    assert read_log(sent) == expected
