"""What a backend says at length: kept within bounds, and without secrets."""

import asyncio
import time
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from ollama_proxy.base import log
from ollama_proxy.base.errors import BackendError, CapacityError, TransientError
from ollama_proxy.core.lifecycle.events import Failed, Gone, Progressed, Tick
from ollama_proxy.core.lifecycle.record import (
    Fault,
    LaunchId,
    Policy,
    Progress,
    Record,
    Stage,
    State,
)
from ollama_proxy.core.lifecycle.transitions import step
from ollama_proxy.fleet.backend import Observation, Phase
from ollama_proxy.fleet.reports import LONGEST, bounded, cleaned, masked, secrets_in
from tests.fakes.instance import InProcessBackend
from tests.fleet.rig import Deployment
from tests.proxy import ORDERS, RunningProxy, generate, running_proxy
from tests.virtual_time import in_virtual_time

ONE = LaunchId("one")
KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abc.def-1", "Authorization: ***"),
        ("sent Bearer abc.def-1, then", "sent Bearer ***, then"),
        ("authorization: Token abc def", "authorization: ***"),
        ("GET https://u:pw@host/x?a=1", "GET https://***@host/x?a=1"),
        ("GET /b?X-Amz-Signature=abc&a=1", "GET /b?X-Amz-Signature=***&a=1"),
        ('{"api_key": "abc", "a": 1}', '{"api_key": "***", "a": 1}'),
        ("export OVH_TOKEN=abc; ls", "export OVH_TOKEN=***; ls"),
        ("DB_PASSWORD='abc' ok", "DB_PASSWORD='***' ok"),
        (f"x {KEY} y", "x *** y"),
        ("-----BEGIN PRIVATE KEY-----\ncut off", "***"),
        ("got EXO0123456789abcdef01234567 back", "got *** back"),
        ("ghp_abcdefghijklmnop1234", "***"),
        ("eyJhbGciOi.eyJzdWIi.c2ln", "***"),
        ("nvidia-smi: no devices were found", "nvidia-smi: no devices were found"),
        ("E: Unable to locate package x", "E: Unable to locate package x"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, left: str) -> None:
    assert masked(text) == left


def test_secrets_of_the_settings_are_masked_wherever_they_stand() -> None:
    assert masked("a hunter2hunter b", {"hunter2hunter"}) == "a *** b"
    assert masked("a x b", {"x", ""}) == "a x b"


@given(st.text(max_size=40_000))
def test_a_report_has_at_most_its_bytes_and_is_text(text: str) -> None:
    kept = bounded(text)

    assert len(kept.encode()) <= LONGEST
    assert "\0" not in kept


def test_of_a_long_report_the_end_is_kept() -> None:
    kept = bounded("a" * 1_000_000 + "é" * 5000 + "the last line")

    assert kept.startswith("…")
    assert kept.endswith("ééthe last line")
    assert len(kept.encode()) <= LONGEST
    assert bounded("short") == "short"


def test_a_secret_at_the_cut_is_not_kept_in_part() -> None:
    kept = bounded("s3cretvalue" * 5000, {"s3cretvalue"})

    assert "s3cret" not in kept


@pytest.mark.parametrize(
    "hostile",
    ["a", "-eyJ", "eyJa.", "token ", "token:", "x://", "-----BEGIN PRIVATE KEY-----"],
)
def test_no_text_takes_long_to_mask(hostile: str) -> None:
    begun = time.process_time()
    bounded(hostile * (200_000 // len(hostile)))

    assert time.process_time() - begun < 2.0


def test_a_message_stays_a_sentence() -> None:
    fault = Fault("x", "line one\n\tline two " + "z" * 5000, final=True)
    told = cleaned(Failed(ONE, fault, "report"), {"line two"})

    assert isinstance(told, Failed)
    assert told.fault.message.startswith("line one *** zz")
    assert len(told.fault.message) == 1000
    assert told.fault.final
    advice = Gone(ONE, "check FLY_API_TOKEN: it has to be a token of the app")
    assert cleaned(advice, ()) == advice


def test_secrets_are_found_by_type_and_by_name() -> None:
    class Nested(BaseModel):
        """Settings of a backend."""

        key: SecretStr = SecretStr("aaaaaaaa")
        tokens: dict[str, SecretStr] = {"x": SecretStr("bbbbbbbb")}
        zone: str = "ch"

    found = secrets_in({"nested": Nested(), "api_token": "cccccccc", "url": "dddd"})

    assert found == {"aaaaaaaa", "bbbbbbbb", "cccccccc"}


class ToldDeployment(Deployment):
    """A deployment whose faults are looked at."""

    def __init__(self, policy: Policy | None = None) -> None:
        policy = policy or Policy()
        super().__init__(policy, load_s=0.0, secrets={"hunter2hunter"})

    async def fault_after(self, length_s: float) -> Fault:
        await self.pool.lease("m", wait_s=0.0)
        await asyncio.sleep(length_s)
        fault = self.record.fault
        assert fault is not None
        return fault


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.GONE])
@pytest.mark.parametrize("moment", ["booting", "preparing"])
def test_want_of_room_that_is_told_later_is_told_as_such(
    phase: Phase, moment: str
) -> None:
    @in_virtual_time
    async def asked() -> None:
        deployment = ToldDeployment()
        end = Observation(phase, detail="no room in GRA", reason="capacity")
        if moment == "preparing":
            deployment.probe.load_s = 1000.0
            await deployment.pool.lease("m", wait_s=5.0)
        deployment.cloud.end = end
        fault = await deployment.fault_after(8.0)
        await deployment.pool.aclose()

        assert fault == Fault("capacity", "no room in GRA")
        assert deployment.record.failures >= 1

    asked()


@in_virtual_time
async def test_an_instance_that_is_gone_leaves_its_last_words() -> None:
    deployment = ToldDeployment()
    deployment.cloud.faults.never_boots = True
    await deployment.pool.lease("m", wait_s=0.0)
    await asyncio.sleep(10)
    deployment.cloud.preempt()
    await asyncio.sleep(5)
    fault = deployment.record.fault
    await deployment.pool.aclose()

    assert fault is not None
    assert fault.message == (
        "the cloud says that the instance does not exist any more; before that it said:"
        " booting"
    )


@in_virtual_time
async def test_an_instance_that_can_not_be_reached_says_why() -> None:
    deployment = ToldDeployment(Policy(start_timeout_s=60.0))
    deployment.cloud.faults.look_fails = 1.0
    fault = await deployment.fault_after(70.0)
    await deployment.pool.aclose()

    assert fault == Fault(
        "unreachable",
        "the instance could not be reached for 60 s: the fake cloud did not answer",
    )


@in_virtual_time
async def test_a_cloud_that_takes_no_launch_says_why() -> None:
    deployment = ToldDeployment(Policy(start_timeout_s=60.0))
    deployment.cloud.start_error = TransientError("503 hunter2hunter maintenance")
    await deployment.pool.lease("m", wait_s=0.0)
    await asyncio.sleep(10)
    told = deployment.record.progress.problem
    fault = await deployment.fault_after(60.0)
    await deployment.pool.aclose()

    assert told == "503 *** maintenance"
    assert fault.message == f"the cloud took no launch for 60 s: {told}"


def test_words_that_change_are_no_progress() -> None:
    policy = Policy(start_timeout_s=60.0)
    record = Record(State.STARTING, launch_id=ONE, accepted=True)
    for number in range(61):
        up = Progress(Stage.BOOTING, detail="up", problem=f"try {number}")
        for event in (Progressed(ONE, up), Tick()):
            record = step(record, event, now=float(number), policy=policy).record

    assert record.state is State.STOPPING
    assert record.fault == Fault(
        "unreachable", "the instance could not be reached for 60 s: try 60"
    )


@in_virtual_time
async def test_an_instance_that_falls_silent_says_how() -> None:
    deployment = ToldDeployment()
    (await deployment.pool.lease("m", wait_s=60.0))  # it serves
    deployment.probe.answers = False
    await asyncio.sleep(60)
    lost = [one for one in deployment.store.transitions if one.event == "Lost"]
    await deployment.pool.aclose()

    assert lost[0].fault == (
        "the instance did not answer 3 probes in a row: nothing listens there"
    )


@pytest.mark.parametrize(
    "end",
    [
        Observation(Phase.FAILED, detail="no driver", report="log: hunter2hunter\nend"),
        CapacityError("no room", report="log: hunter2hunter\nend"),
    ],
)
def test_a_report_goes_to_one_log_event_and_to_the_journal(
    end: Observation | BackendError,
) -> None:
    @in_virtual_time
    async def asked() -> None:
        deployment = ToldDeployment()
        if isinstance(end, Observation):
            deployment.cloud.end = end
        else:
            deployment.cloud.start_error = end
        with structlog.testing.capture_logs() as lines:
            await deployment.fault_after(5.0)
        await deployment.pool.aclose()
        logged = [line for line in lines if line["event"] == log.LAUNCH_REPORT]
        kept = [one for one in deployment.store.transitions if one.report]

        assert [line["report"] for line in logged] == ["log: ***\nend"]
        assert [(one.event, one.report) for one in kept] == [
            ("Failed", "log: ***\nend")
        ]
        assert kept[0].launch_id == logged[0]["launch_id"]

    asked()


class FailingBackend(InProcessBackend):
    """Has an instance that never comes up, and a lot to say about it."""

    def __init__(self) -> None:
        super().__init__()
        self.end = Observation(Phase.FAILED, detail="it broke", report="x" * 20_000)

    async def inspect(self, launch_id: LaunchId) -> Observation:
        seen = await super().inspect(launch_id)
        return self.end if seen.phase is not Phase.GONE else seen


async def test_the_journal_has_the_report_under_its_launch(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, backend=FailingBackend()) as proxy:
        await proxy.parts.pool.wake()
        await proxy.until(lambda: proxy.state == "cool-down")
        async with proxy.session.get(f"{proxy.url}/-/journal", headers=ORDERS) as reply:
            lines = (await reply.json())["transitions"]

    failed = next(line for line in lines if line["event"] == "Failed")
    assert failed["launch_id"].startswith("l")
    assert failed["fault"] == "it broke"
    assert len(failed["report"].encode()) == LONGEST
    assert [line["report"] for line in lines if line["event"] != "Failed"] == [None] * (
        len(lines) - 1
    )


async def refused_wake(proxy: RunningProxy, path: str) -> str:
    async with proxy.session.post(f"{proxy.url}{path}", json=generate()) as reply:
        assert reply.status == 500
        assert reply.headers["X-Ollama-Proxy"] == "store"
        body = await reply.json()
    return str(body["error"])


@pytest.mark.parametrize("path", ["/-/wake", "/api/generate"])
async def test_a_full_disk_is_told_until_a_write_succeeds(
    tmp_path: Path, path: str
) -> None:
    async with running_proxy(tmp_path) as proxy:
        assert (await proxy.status())["error"] is None
        proxy.store._db.execute("PRAGMA query_only = ON")
        said = await refused_wake(proxy, path)
        status = await proxy.status()
        proxy.store._db.execute("PRAGMA query_only = OFF")
        await proxy.wake()

        assert said == status["error"]
        assert "the state can't be written: attempt to write a readonly" in said
        assert f"make room in '{tmp_path}'" in said
        assert status["provisioning_status"] == "error"
        assert status["instance_status"] == "cold"
        assert (await proxy.status())["error"] is None
        assert proxy.state == State.READY
