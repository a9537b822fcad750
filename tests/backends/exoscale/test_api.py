"""The SDK's traps, each pinned, and every failure named after what to do next."""

import asyncio

import exoscale.api.v2
import pytest

from ollama_proxy.backends.base.timing import CloudTiming
from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.check import RIGHTS
from ollama_proxy.backends.exoscale.operations import settled
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitError,
    SpecError,
    TransientError,
)
from tests.backends.exoscale.rig import Rig
from tests.fakes.exoscale.server import KEY, SECRET, signature
from tests.fakes.exoscale.spec import SPEC

NOWHERE = "11111111-1111-4111-8111-111111111111"


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "names", "expected"),
    [
        (
            "GET",
            "/v2/zone",
            b"",
            "",
            "",
            "Eo1bioOH6s9qMcMnKnrg9drsjzp45wMVD79174+4E2M=",
        ),
        (
            "GET",
            "/v2/template",
            b"",
            "visibility=public&family=gpu",
            "family;visibility",
            "cn6PFjCxMfH/8JCnxgmnkM/pwwH9Zolxeq1Mrq50B0E=",
        ),
        (
            "GET",
            "/v2/instance",
            b"",
            "labels=a%3Db",
            "labels",
            "HNY/TyCxV4HL7jUzW7OFHaqRvqHgZn0GOr4n37E1cWk=",
        ),
        (
            "POST",
            "/v2/instance",
            b'{"name": "x", "disk-size": 50}',
            "",
            "",
            "2XZtjmjoFUEvZUvtzVCPI7I1At0QQnBFjCZJO/F/0CY=",
        ),
    ],
)
def test_the_fake_knows_the_right_signature(
    method: str, path: str, body: bytes, query: str, names: str, expected: str
) -> None:
    assert signature(method, path, body, query, names, "1800000000") == expected


async def test_the_official_sdk_is_at_home_in_the_fake(rig: Rig) -> None:
    client = exoscale.api.v2.Client(
        KEY, SECRET, url=rig.server.url.replace("{zone}", "at-vie-2")
    )
    with client.http_client:
        types = await asyncio.to_thread(client.list_instance_types)
        group = await asyncio.to_thread(client.create_security_group, name="mine")
        waited = await asyncio.to_thread(client.wait, group["id"])
        await asyncio.to_thread(
            client.delete_security_group, id=waited["reference"]["id"]
        )

    assert len(types["instance-types"]) == 4


async def test_a_key_of_somebody_else_is_refused(rig: Rig) -> None:
    stranger = ExoscaleApi(
        "at-vie-2", endpoint=rig.server.url, key=KEY, secret="wrong", clock=rig.clock
    )
    with pytest.raises(CredentialsError, match="EXOSCALE_API_SECRET"):
        await stranger.call("list_instances")
    stranger.close()


async def test_a_wrong_clock_is_named_as_the_cause(rig: Rig, api: ExoscaleApi) -> None:
    rig.server.skew_s = 7200.0
    rig.clock.ahead_s = -7200.0
    with pytest.raises(CredentialsError, match=r"clock is -7(200|199) s off"):
        await api.call("list_instances")


@pytest.mark.parametrize(
    ("operation", "fault", "expected"),
    [
        ("list_instances", "500", TransientError),
        ("list_instances", "lost-after", TransientError),
        ("list_instances", "html-502-after", TransientError),
        ("list_instances", "429", RateLimitError),
        ("list_instances", "403", CredentialsError),
        ("list_instances", "401", CredentialsError),
        ("list_instances", "400", SpecError),
        ("list_instances", "404", NotFoundError),
        ("create_security_group", "500-after", OutcomeUnknownError),
        ("create_security_group", "lost-after", OutcomeUnknownError),
        ("create_security_group", "lost-before", OutcomeUnknownError),
        ("create_security_group", "429", RateLimitError),
        ("create_security_group", "409", ConflictError),
        ("create_security_group", "412", ConflictError),
        ("create_security_group", "protected", ConflictError),
        ("create_instance", "409", CapacityError),
    ],
)
async def test_a_failure_is_named_after_what_to_do_next(
    rig: Rig,
    api: ExoscaleApi,
    operation: str,
    fault: str,
    expected: type[BackendError],
) -> None:
    rig.server.script[operation.replace("_", "-")] = [fault]
    arguments = {"name": "mine"} if operation.startswith("create") else {}
    with pytest.raises(BackendError) as caught:
        await api.call_once(operation, **arguments)

    assert type(caught.value) is expected


async def test_nobody_at_the_address_means_that_nothing_was_sent(rig: Rig) -> None:
    nobody = ExoscaleApi(
        "at-vie-2",
        endpoint="http://127.0.0.1:1/v2",
        key=KEY,
        secret=SECRET,
        clock=rig.clock,
    )
    with pytest.raises(TransientError):
        await nobody.call("create_security_group", name="mine")
    nobody.close()


async def test_a_dead_connection_ends_in_a_time_out(
    rig: Rig,
) -> None:
    api = ExoscaleApi(
        "at-vie-2",
        endpoint=rig.server.url,
        key=KEY,
        secret=SECRET,
        clock=rig.clock,
        timing=CloudTiming(connect_s=0.2, call_s=0.2),
    )
    rig.server.script["create-security-group"] = ["slow"]
    with pytest.raises(OutcomeUnknownError):
        await api.call("create_security_group", name="mine")
    api.close()


async def test_a_right_id_in_the_wrong_zone_is_not_found(rig: Rig) -> None:
    elsewhere = ExoscaleApi(
        "de-fra-1", endpoint=rig.server.url, key=KEY, secret=SECRET, clock=rig.clock
    )
    stranger = rig.cloud.stranger("at-vie-2")
    with pytest.raises(NotFoundError):
        await elsewhere.call("get_instance", id=stranger.id)
    elsewhere.close()


async def test_a_failed_operation_without_a_reason_is_told(
    rig: Rig, api: ExoscaleApi
) -> None:
    with pytest.raises(TransientError, match="no reason given"):
        await settled(api, {"id": NOWHERE, "state": "failure"}, limit_s=1.0)


async def test_an_operation_that_does_not_end_is_not_waited_for_for_ever(
    rig: Rig, api: ExoscaleApi
) -> None:
    with pytest.raises(TransientError, match="takes longer than"):
        await settled(api, {"id": NOWHERE, "state": "pending"}, limit_s=0.2)


def test_every_right_of_the_role_is_an_operation_of_the_api() -> None:
    operations = {
        told["operationId"] for path in SPEC["paths"].values() for told in path.values()
    }

    assert set(RIGHTS) <= operations


async def test_no_secret_is_in_an_error_or_a_repr(rig: Rig, api: ExoscaleApi) -> None:
    rig.server.script["list-instances"] = ["403"]
    with pytest.raises(CredentialsError) as caught:
        await api.call("list_instances")

    settings = rig.settings()
    assert SECRET not in f"{caught.value!r} {api!r} {settings!r} {settings}"
