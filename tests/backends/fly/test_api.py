"""The API's meanings of one status, its leases, its versions and its limits."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ollama_proxy.backends.base import json_client as rest
from ollama_proxy.backends.base.cloud import Assessment, StateContext
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.failures import (
    AppTakenError,
    NameTakenError,
    NotYetError,
    failure,
)
from ollama_proxy.backends.fly.machines import Machine
from ollama_proxy.backends.fly.states import assess
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    OutcomeUnknownError,
    SpecError,
    TransientError,
)
from tests.backends.fly.rig import Rig

CONFIG = {"image": "x:1", "guest": {"cpus": 1, "memory_mb": 256}}


@pytest.fixture
async def api(rig: Rig) -> AsyncIterator[FlyApi]:
    opened = rig.api()
    yield opened
    await opened.aclose()


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (400, "bad config", SpecError),
        (401, "token validation error", CredentialsError),
        (403, "another organisation", CredentialsError),
        (404, "not found", NotFoundError),
        (408, "deadline_exceeded", OutcomeUnknownError),
        (409, "lease currently held by x expires at 1", ConflictError),
        (409, "machine ID abc123 already exists with name", NameTakenError),
        (409, "failed due to concurrent update", ConflictError),
        (409, "could not reserve resource for machine", CapacityError),
        (409, "governor policy blocked start", CapacityError),
        (412, "machine still active, refusing to start", ConflictError),
        (412, "no room on the host of the volume", CapacityError),
        (412, "volume is currently bound to machine", ConflictError),
        (422, "Name has already been taken", AppTakenError),
        (422, "payment method missing", CredentialsError),
        (429, "rate", TransientError),
    ],
)
def test_each_answer_has_one_meaning(
    status: int, text: str, expected: type[BackendError]
) -> None:
    body = {"error": text}
    error = failure(
        reads=False, status=status, said=f"POST /volumes: {text}", body=body
    )

    assert type(error) is expected


def test_a_wait_that_ran_out_changed_nothing() -> None:
    error = failure(reads=True, status=408, said="GET /wait: deadline", body={})

    assert type(error) is NotYetError


def test_a_lack_of_room_may_be_told_by_the_bodys_own_status() -> None:
    body = {"error": "no", "status": "insufficient_capacity"}

    assert isinstance(
        failure(reads=False, status=422, said="no", body=body), CapacityError
    )


@pytest.mark.parametrize(
    ("status", "expected"), [(404, TransientError), (502, OutcomeUnknownError)]
)
def test_what_is_not_the_apis_own_answer_says_nothing(
    status: int, expected: type[BackendError]
) -> None:
    error = failure(reads=False, status=status, said="<html>", body=None)

    assert type(error) is expected


def test_a_name_that_is_taken_tells_by_whom() -> None:
    told = "unique machine name violation, machine ID 0a1b2c already exists with name"
    error = failure(reads=False, status=409, said=told, body={"error": told})

    assert isinstance(error, NameTakenError)
    assert error.machine_id == "0a1b2c"


async def test_a_name_is_taken_once(rig: Rig, api: FlyApi) -> None:
    first = await api.create("one", "fra", CONFIG)
    with pytest.raises(NameTakenError) as caught:
        await api.create("one", "fra", CONFIG)

    assert caught.value.machine_id == first.id
    assert rig.cloud.state(rig.cloud.machines()[0]) == "created"


async def test_what_is_leased_is_changed_by_the_holder_alone(
    rig: Rig, api: FlyApi
) -> None:
    machine = await api.create("one", "fra", CONFIG)
    assert machine.nonce
    await api.unlock(machine.id, machine.nonce)
    async with api.machine_lock(machine.id) as nonce:
        with pytest.raises(ConflictError):
            await api.start(machine.id, "another")
        with pytest.raises(ConflictError):
            async with api.machine_lock(machine.id):
                raise AssertionError("two hold one lease")
        await api.start(machine.id, nonce)

    assert rig.cloud.machines()[0].nonce is None


async def test_an_update_of_what_changed_meanwhile_is_refused(
    rig: Rig, api: FlyApi
) -> None:
    machine = await api.create("one", "fra", CONFIG)
    nonce = machine.nonce or ""
    await api.update(machine, CONFIG, nonce)
    with pytest.raises(ConflictError):
        await api.update(machine, CONFIG, nonce)


async def test_a_wait_that_runs_out_is_no_failure(rig: Rig, api: FlyApi) -> None:
    machine = await api.create("one", "fra", CONFIG)

    assert not await api.reaches(machine, "started")
    await api.start(machine.id, machine.nonce or "")
    assert await api.reaches(machine, "started")


async def test_calls_keep_to_flys_pace(rig: Rig, api: FlyApi) -> None:
    machine = await api.create("one", "fra", CONFIG)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for number in range(5):
        await api.mark(machine.id, "key", str(number))
    took_s = loop.time() - begun

    assert took_s >= 1.9
    assert rig.server.violations == []


def thought(state: str, *, host: str = "ok", **known: bool) -> Assessment:
    plain = {"standby": True, "told_to_stop": False, "start_not_visible_yet": False}
    circumstances = plain | known
    machine = Machine("a", state=state, host_status=host)
    return assess(machine, StateContext(**circumstances))[0]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("created", Assessment.PENDING),
        ("creating", Assessment.PENDING),
        ("starting", Assessment.PENDING),
        ("started", Assessment.MAYBE_READY),
        ("restarting", Assessment.PENDING),
        ("updating", Assessment.PENDING),
        ("replacing", Assessment.PENDING),
        ("stopping", Assessment.FAILED),
        ("stopped", Assessment.GONE),
        ("suspending", Assessment.FAILED),
        ("suspended", Assessment.GONE),
        ("failed", Assessment.FAILED),
        ("launch_failed", Assessment.FAILED),
        ("destroying", Assessment.FAILED),
        ("destroyed", Assessment.GONE),
        ("migrated", Assessment.GONE),
        ("dreaming", Assessment.PENDING),
    ],
)
def test_each_state_of_a_kept_machine(state: str, expected: Assessment) -> None:
    assert thought(state) is expected


def test_a_machine_on_a_host_out_of_reach_is_not_gone_unless_it_was_stopped() -> None:
    assert thought("stopped", host="unreachable") is Assessment.PENDING
    assert thought("stopped", host="unreachable", told_to_stop=True) is Assessment.GONE
    assert (
        thought("started", host="unreachable", told_to_stop=True) is Assessment.PENDING
    )


def test_a_machine_on_a_host_out_of_reach_is_not_taken_to_rest() -> None:
    assert Machine("a", state="stopped").is_stopped
    assert not Machine("a", state="stopped", host_status="unreachable").is_stopped


def test_a_machine_of_one_launch_has_to_be_destroyed_still() -> None:
    assert thought("stopped", standby=False) is Assessment.FAILED


def test_a_machine_that_was_just_started_may_still_be_shown_at_rest() -> None:
    assert thought("suspended", start_not_visible_yet=True) is Assessment.PENDING


async def test_an_api_in_plain_http_reads_no_certificates(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "tls", lambda: pytest.fail("authorities were read"))
    api = rig.api()
    assert await api.machines() == []
    await api.aclose()
