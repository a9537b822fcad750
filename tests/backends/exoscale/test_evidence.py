"""What there is to read of an instance that failed: from itself, and from Exoscale."""

import asyncio

import pytest

from ollama_proxy.backends.base.timing import CloudTiming
from ollama_proxy.base.errors import OutcomeUnknownError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Observation, Phase, SupportsReport
from tests.backends.exoscale.rig import Rig

LAUNCH = LaunchId("l0123456789abcdef")
LINES = b"Reading package lists...\nE: Unable to locate package nvidia-x\n"


async def seen_of(rig: Rig, *, until_inside: bool = True) -> Observation:
    """Launch an instance, look at it once it is up, and stop it."""
    backend = rig.open()
    await backend.start(LAUNCH)
    (instance,) = rig.cloud.instances.values()
    async with asyncio.timeout(5):
        while until_inside and instance.id not in rig.guests.inside:
            await asyncio.sleep(0.01)
    seen = await backend.inspect(LAUNCH)
    instance.forced = None
    await backend.stop(LAUNCH)
    await backend.aclose()
    return seen


async def failed_step(rig: Rig, report: bytes | str) -> Observation:
    rig.guests.stages, rig.guests.report = ["failed:driver"], report
    return await seen_of(rig)


async def test_the_lines_of_a_failed_step_are_fetched_before_the_machine_goes(
    rig: Rig,
) -> None:
    seen = await failed_step(rig, LINES)

    assert seen.phase is Phase.FAILED
    assert seen.reason == "driver"
    assert seen.detail == (
        "the instance could not set up its driver: E: Unable to locate package nvidia-x"
    )
    assert seen.report == LINES.decode().rstrip()


async def test_a_full_disk_names_the_setting(rig: Rig) -> None:
    rig.guests.stages = ["failed:disk"]
    rig.guests.report = b"tar: write error: No space left on device"
    seen = await seen_of(rig)

    assert seen.reason == "disk"
    assert seen.detail.startswith("the instance's disk is full; raise EXOSCALE_DISK_S")


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ("absent", "the instance answers /-/report with 404"),
        ("cut", "does not answer /-/report"),
        ("silent", "does not answer /-/report: it does not answer in time"),
        (b"", "the step 'driver' left no lines"),
    ],
)
async def test_that_no_lines_could_be_fetched_is_said(
    rig: Rig, report: bytes | str, says: str
) -> None:
    rig.timing = CloudTiming(guard_s=0.4)
    seen = await failed_step(rig, report)

    assert seen.phase is Phase.FAILED
    assert seen.detail == "the instance could not set up its driver"
    assert says in seen.report


async def test_of_lines_that_do_not_end_what_came_is_kept(
    rig: Rig,
) -> None:
    rig.timing = CloudTiming(guard_s=0.5)
    async with asyncio.timeout(5):
        seen = await failed_step(rig, "endless")

    assert seen.detail.endswith("driver: E: the mirror is gone")
    assert seen.report.startswith("E: the mirror is gone")


async def test_of_a_huge_report_a_bounded_part_is_read(rig: Rig) -> None:
    seen = await failed_step(rig, b"x" * 79 + b"\n" + b"E: no space\n" * 5_000_000)

    assert len(seen.report) <= 32 * 1024
    assert seen.detail.endswith("E: no space")


async def test_a_report_of_any_bytes_is_told_as_text(rig: Rig) -> None:
    seen = await failed_step(rig, b"\x1b]0;title\x07\xff\xfe failed\0\r\nbye\n")

    assert seen.report == "\\x1b]0;title\\x07\ufffd\ufffd failed\\x00\nbye"


async def test_of_an_instance_in_error_the_clouds_own_words_are_told(rig: Rig) -> None:
    rig.cloud.create_fails, rig.cloud.says = "error", "host 7 is on fire"
    seen = await seen_of(rig, until_inside=False)

    assert seen.phase is Phase.FAILED
    assert seen.detail == (
        "Exoscale made no a5000.small in at-vie-2: unavailable: host 7 is on fire"
    )
    told = seen.report.splitlines()
    assert told[0].startswith("instance ")
    assert "state 'error'" in told[0]
    assert "failure, unavailable, host 7 is on fire" in told[1]
    assert "create-instance 200 Success" in told[2]
    assert told[3].startswith("nothing can be fetched from the instance before its")


async def test_an_error_that_no_operation_explains_names_the_instance(
    rig: Rig,
) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    (instance,) = rig.cloud.instances.values()
    instance.forced = "error"
    seen = await backend.inspect(LAUNCH)
    instance.forced = None
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert seen.detail == (
        f"Exoscale reports an error of the instance ({instance.id} in at-vie-2)"
    )
    assert "operation" in seen.report


@pytest.mark.parametrize("fault", ["403", "500", "lost-before"])
async def test_events_that_can_not_be_read_hide_nothing_else(
    rig: Rig, fault: str
) -> None:
    rig.cloud.create_fails = "error"
    rig.server.always["list-events"] = fault
    seen = await seen_of(rig, until_inside=False)

    assert seen.phase is Phase.FAILED
    assert "failure, unavailable" in seen.report
    assert "Exoscale's events could not be read: list_events" in seen.report


async def test_user_data_is_in_no_report(rig: Rig) -> None:
    rig.cloud.create_fails = "error"
    seen = await seen_of(rig, until_inside=False)
    (instance,) = rig.cloud.instances.values()

    assert instance.body["user-data"][:40] not in seen.report
    assert "user-data" not in seen.report


async def test_an_instance_whose_guard_was_never_heard_says_what_that_means(
    rig: Rig,
) -> None:
    rig.guests.mute = True
    seen = await seen_of(rig)

    assert seen.phase is Phase.PENDING
    assert seen.problem.startswith("nothing can be fetched from the instance before")
    assert "does not answer /-/stage" in seen.problem
    assert " object at 0x" not in seen.problem


async def given_up(rig: Rig, *, until_inside: bool = True) -> str:
    """Launch an instance, look at it once, ask for the report, and stop it."""
    backend = rig.open()
    await backend.start(LAUNCH)
    (instance,) = rig.cloud.instances.values()
    async with asyncio.timeout(5):
        while until_inside and instance.id not in rig.guests.inside:
            await asyncio.sleep(0.01)
    await backend.inspect(LAUNCH)
    said = await backend.report(LAUNCH)
    await backend.stop(LAUNCH)
    await backend.aclose()
    return said


async def test_of_a_boot_that_does_not_end_its_step_and_its_last_lines_are_told(
    rig: Rig,
) -> None:
    rig.guests.stages = ["driver"]
    rig.guests.told_stages = "booting 0\nguard 20\nguard.end 32\ndriver 32\n"
    rig.guests.logs = {"driver": b"Get: 1\n" * 5000 + b"Setting up nvidia-dkms\n"}
    told = (await given_up(rig)).splitlines()

    assert told[0].startswith("instance ")
    assert "state 'running'" in told[0]
    assert "its boot is at 'driver'; over are: booting 20 s, guard 12 s" in told
    assert told[-1] == "Setting up nvidia-dkms"
    assert len(told) <= 40


async def test_the_report_of_a_guard_that_was_never_heard_says_so(rig: Rig) -> None:
    rig.guests.mute = True
    told = await given_up(rig)

    assert "create-instance 200 Success" in told
    assert told.splitlines()[-1].startswith("nothing can be fetched from the instance")


async def test_a_report_never_tells_the_launchs_token(rig: Rig) -> None:
    rig.guests.stages = ["driver"]
    backend = rig.open()
    token = backend._authority.token(LAUNCH)
    await backend.aclose()
    rig.guests.logs = {"driver": f"curl -H 'x: {token}'".encode()}

    assert token not in await given_up(rig)


@pytest.mark.parametrize("step", ["driver/../../../etc/shadow", "?", "a b#c", "é"])
async def test_of_a_step_that_no_installation_has_no_log_is_asked_for(
    rig: Rig, step: str
) -> None:
    rig.guests.stages = [step]
    told = await given_up(rig)

    assert told.splitlines()[-1] == f"its boot is at {step!r}"
    assert "does not answer" not in told


async def test_the_report_has_what_comes_in_time(
    rig: Rig,
) -> None:
    rig.timing = CloudTiming(given_up_s=1.5)
    rig.guests.stages, rig.guests.logs = ["driver"], {"driver": b"one\ntwo\n"}
    rig.server.script["list-events"] = ["", "slow"]
    told = await given_up(rig)

    assert told.splitlines()[0].startswith("what else there is did not come within")
    assert told.endswith("one\ntwo")


@pytest.mark.parametrize("fault", ["403", "500", "lost-before", "404"])
async def test_a_report_is_there_whatever_exoscale_answers(
    rig: Rig, fault: str
) -> None:
    rig.guests.stages, rig.guests.logs = ["driver"], {"driver": b"one\n"}
    rig.server.script["get-instance"] = ["", fault]
    told = await given_up(rig)

    assert "what else there is could not be fetched: get_instance" in told
    assert told.endswith("one")


async def test_of_a_lost_purchase_exoscales_events_are_told(rig: Rig) -> None:
    rig.server.script["create-instance"] = ["lost-after"]
    rig.cloud.timing.list_lag_s = 1e6
    backend = rig.open()
    with pytest.raises(OutcomeUnknownError):
        await backend.start(LAUNCH)
    told = await backend.report(LAUNCH)
    rig.cloud.timing.list_lag_s = 0.0
    for one in rig.cloud.instances.values():
        one.listed_at = 0.0
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert f"no list of at-vie-2 shows 'ollama-proxy-{LAUNCH}'" in told
    assert "create-instance 200 Success" in told


async def test_of_what_was_never_bought_there_is_nothing_to_read(rig: Rig) -> None:
    backend = rig.open()
    told = await backend.report(LAUNCH)
    await backend.aclose()

    assert told == ""
    assert isinstance(backend, SupportsReport)
