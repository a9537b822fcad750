"""Apps of the deployment's name that it did not make: only a yes that names them."""

import asyncio
from collections.abc import Collection

import pytest

from ollama_proxy.backends.ovh.apps import App, AppSpec, AppStatus
from ollama_proxy.backends.ovh.backend import OvhBackend
from ollama_proxy.backends.ovh.namesakes import to_replace
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.base.errors import (
    ConsentError,
    CredentialsError,
    StartupError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from tests.backends.ovh.rig import IMAGE, Rig
from tests.backends.ovh.test_commands import typed
from tests.fakes.ovh.cloud import FakeApp, Timing

NAME = "ollama"
OTHER_OWNER = "fedcba9876543210"


def app(name: str, app_id: str = "a", state: str = "RUNNING") -> tuple[str, App]:
    spec = AppSpec(name, "nginx:1", {}, {"flavor": "l4-1-gpu"})
    return "GRA", App(app_id, spec=spec, status=AppStatus(state))


def chosen(
    *found: tuple[str, App], name: str | None = NAME, allowed: Collection[str] = ()
) -> list[str]:
    kept = to_replace(found, name=name, allowed=allowed, per_hour=1.2)
    return [one.id for _, one in kept]


def test_one_of_our_name_is_named_with_id_and_price() -> None:
    with pytest.raises(ConsentError) as caught:
        chosen(app(NAME, "a"), app(NAME, "b", "STOPPED"), app("other", "c"))

    said = str(caught.value)
    assert caught.value.names == ("a", "b")
    assert "app a in GRA, l4-1-gpu, RUNNING (1.2 per hour as configured)" in said
    assert "app b in GRA, l4-1-gpu, STOPPED (costs nothing now)" in said
    assert "--replace a --replace b" in said
    assert "app c" not in said


def test_a_yes_goes_for_those_alone_that_it_names() -> None:
    with pytest.raises(ConsentError) as caught:
        chosen(app(NAME, "a"), app(NAME, "b"), allowed={"b"})

    assert caught.value.names == ("a",)
    assert chosen(app(NAME, "a"), app(NAME, "b"), allowed={"a", "b"}) == ["a", "b"]


def test_a_yes_for_an_app_of_another_name_is_a_mistake() -> None:
    with pytest.raises(StartupError, match="has the name 'other'"):
        chosen(app("other", "c"), allowed={"c"})


def test_a_yes_for_an_app_without_a_name_of_ours_is_a_mistake() -> None:
    with pytest.raises(StartupError, match="OVH_APP_NAME is None"):
        chosen(app(NAME, "c"), name=None, allowed={"c"})


def test_an_id_that_is_gone_stops_nothing() -> None:
    assert chosen(app("other", "c"), allowed={"gone"}) == []


def test_what_is_being_deleted_is_waited_for_only_after_a_yes() -> None:
    leaving = app(NAME, "a", "DELETING")

    assert chosen(leaving) == []
    assert chosen(leaving, allowed={"a"}) == ["a"]


def test_names_that_differ_in_case_or_length_are_other_names() -> None:
    assert chosen(app("OLLAMA"), app("ollama-2"), app("olla")) == []


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "a/b", "--replace", "x" * 64])
def test_a_name_that_no_app_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="app_name"):
        OvhSettings.model_validate({"app_name": name})


async def deployed(
    backend: OvhBackend, names: Collection[str] = (), image: str = IMAGE
) -> list[str]:
    async with asyncio.timeout(20):
        return [step async for step in backend.deploy_over(image, names)]


def theirs(rig: Rig, **labels: str) -> FakeApp:
    """Add an app of our name that we did not make, as the older controller made it."""
    made = rig.cloud.stranger()
    made.spec["name"] = NAME
    made.spec["labels"] |= labels
    return made


def there(rig: Rig) -> list[FakeApp]:
    return [one for one in rig.cloud.apps.values() if rig.cloud.is_there(one)]


async def test_without_a_yes_nothing_is_touched(rig: Rig) -> None:
    stranger, namesake = rig.cloud.stranger(), theirs(rig)
    backend = rig.open(image=None, app_name=NAME)
    with pytest.raises(ConsentError, match=namesake.id):
        await deployed(backend)
    launches = backend.regions()
    await backend.aclose()

    assert launches == ["GRA"]
    assert there(rig) == [stranger, namesake]
    assert [what for _, what in namesake.changes] == ["start"]
    assert rig.cloud.made == 0


async def test_with_a_yes_it_is_stopped_deleted_and_waited_for_before_ours_is_made(
    rig: Rig,
) -> None:
    rig.cloud.timing = Timing(stop_s=0.1, delete_s=0.1, deleted_s=0.0)
    stranger, namesake = rig.cloud.stranger(), theirs(rig)
    backend = rig.open(image=None, app_name=NAME)
    told = await deployed(backend, {namesake.id})
    await backend.aclose()

    (ours,) = [one for one in there(rig) if one is not stranger]
    assert [what for _, what in namesake.changes] == ["start", "stop", "delete"]
    assert namesake.changes[-1][0] + 0.1 <= ours.made_at
    if rig.driver == "rest":
        assert ours.spec["name"] == NAME
    assert f"deleting the app {namesake.id} in GRA" in told
    assert [what for _, what in stranger.changes] == ["start"]
    assert rig.cloud.paid == []


async def test_one_that_is_being_deleted_is_gone_before_ours_is_made(rig: Rig) -> None:
    rig.cloud.timing = Timing(delete_s=1.0)
    namesake = theirs(rig)
    namesake.changes.append((rig.cloud.now(), "delete"))
    backend = rig.open(image=None, app_name=NAME)
    await deployed(backend, {namesake.id})
    await backend.aclose()

    (ours,) = there(rig)
    assert namesake.changes[-1][0] + 1.0 <= ours.made_at


async def test_another_owners_app_of_our_name_is_told_as_such(rig: Rig) -> None:
    namesake = theirs(
        rig,
        **{"ollama-proxy-managed": "true", "ollama-proxy-owner": OTHER_OWNER},
    )
    backend = rig.open(image=None, app_name=NAME)
    with pytest.raises(ConsentError, match=f"of the owner {OTHER_OWNER}"):
        await deployed(backend)
    await backend.aclose()

    assert [what for _, what in namesake.changes] == ["start"]


async def test_setbacks_on_the_way_are_gone_through(rig: Rig) -> None:
    namesake = theirs(rig)
    rig.server.script |= {"delete": ["500", "429"]}
    backend = rig.open(image=None, app_name=NAME)
    await deployed(backend, {namesake.id})
    await backend.aclose()

    assert namesake not in there(rig)
    assert (len(there(rig)), rig.cloud.paid) == (1, [])


async def test_an_app_that_changed_its_name_meanwhile_is_left_alone(rig: Rig) -> None:
    namesake = theirs(rig)
    backend = rig.open(image=None, app_name=NAME)
    steps = backend.deploy_over(IMAGE, {namesake.id})
    told = await anext(steps)
    namesake.spec["name"] = "renamed"
    with pytest.raises(StartupError, match="not what it was"):
        await anext(steps)
    await backend.aclose()
    assert told.startswith("stopping the app")

    assert [what for _, what in namesake.changes] == ["start"]
    assert rig.cloud.paid == []


async def test_a_deployment_without_a_name_asks_nobody(rig: Rig) -> None:
    namesake = theirs(rig)
    backend = rig.open(image=None)
    await deployed(backend)
    await backend.aclose()

    assert [what for _, what in namesake.changes] == ["start"]


async def test_typed_without_a_terminal_it_ends_with_2_and_names_what_to_type(
    rig: Rig,
) -> None:
    namesake = theirs(rig)
    refused = await typed(rig, "deploy", IMAGE, OVH_APP_NAME=NAME)
    before = [what for _, what in namesake.changes]
    words = ("deploy", IMAGE, "--replace", namesake.id)
    done = await typed(rig, *words, OVH_APP_NAME=NAME)
    again = await typed(rig, *words, OVH_APP_NAME=NAME)

    assert refused.returncode == 2
    assert f"--replace {namesake.id}" in refused.stderr
    assert before == ["start"]
    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    assert namesake not in there(rig)
    assert "it is there already" in again.stdout
    assert rig.cloud.paid == []


async def test_a_region_of_before_without_a_token_has_deploy_refuse(rig: Rig) -> None:
    if rig.driver == "cli":
        pytest.skip("the command's log-in holds for every region")
    before = rig.open(region="BHS", gpu_model="L40S", idle_action="delete")
    await before.start(LaunchId("l0123456789abcdef"))
    await before.stop(LaunchId("l0123456789abcdef"))
    await before.aclose()
    made = rig.cloud.made
    backend = rig.open(image=None)
    with pytest.raises(CredentialsError, match="OVH_AI_REGION_TOKENS=BHS"):
        await deployed(backend)
    await backend.aclose()

    assert rig.cloud.made == made
