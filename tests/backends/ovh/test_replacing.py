"""`deploy` of another image: the old app goes before the new one is made."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from ollama_proxy.backends.base.image_registry import Image
from ollama_proxy.backends.ovh import image as images
from ollama_proxy.backends.ovh.backend import OvhBackend
from ollama_proxy.base.errors import (
    BackendError,
    CredentialsError,
    SpecError,
    TransientError,
    TwinError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from tests.backends.ovh.rig import IMAGE, Rig
from tests.fakes.ovh.cloud import FakeApp, Timing
from tests.fakes.ovh.server import token_of

LAUNCH = LaunchId("l0123456789abcdef")
OTHER = IMAGE.replace("0.32.15", "0.33.0")


async def deployed(backend: OvhBackend, image: str) -> list[str]:
    async with asyncio.timeout(20):
        return [step async for step in backend.deploy(image)]


def there(rig: Rig) -> list[FakeApp]:
    return [app for app in rig.cloud.apps.values() if rig.cloud.is_there(app)]


async def test_a_stopped_app_of_another_image_is_replaced(rig: Rig) -> None:
    rig.cloud.timing = Timing(stop_s=0.05, delete_s=0.05)
    backend = rig.open(image=None)
    await deployed(backend, IMAGE)
    await deployed(backend, OTHER)
    await backend.aclose()

    assert [app.spec["image"] for app in there(rig)] == [OTHER]
    assert rig.cloud.paid == []


async def test_a_running_app_of_another_image_is_stopped_and_replaced(rig: Rig) -> None:
    rig.cloud.timing = Timing(stop_s=0.05, delete_s=0.05)
    backend = rig.open(image=None)
    await deployed(backend, IMAGE)
    await backend.start(LAUNCH)
    assert len(rig.cloud.paid) == 1
    told = await deployed(backend, OTHER)
    await backend.aclose()

    assert [app.spec["image"] for app in there(rig)] == [OTHER]
    assert rig.cloud.paid == []
    assert any(step.endswith(f"of {IMAGE}") for step in told)


async def test_apps_of_others_are_left_alone_by_a_replacement(rig: Rig) -> None:
    stranger = rig.cloud.stranger()
    backend = rig.open(image=None)
    await deployed(backend, IMAGE)
    await deployed(backend, OTHER)
    await backend.aclose()

    assert stranger in there(rig)
    assert [what for _, what in stranger.changes] == ["start"]


async def test_an_image_without_a_guard_touches_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unguarded(_: str) -> Image:
        return Image("sha256:0", 1, "root", {})

    backend = rig.open(image=None)
    await deployed(backend, IMAGE)
    monkeypatch.setattr(images, "look_at", unguarded)
    with pytest.raises(SpecError, match="not built from cloud-init/container"):
        await deployed(backend, OTHER)
    await backend.aclose()

    assert [app.spec["image"] for app in there(rig)] == [IMAGE]


async def test_a_card_that_is_not_sold_touches_nothing(rig: Rig) -> None:
    backend = rig.open(image=None)
    await deployed(backend, IMAGE)
    await backend.aclose()
    backend = rig.open(image=None, gpu_model="B300")
    with pytest.raises(SpecError):
        await deployed(backend, OTHER)
    await backend.aclose()

    assert [app.spec["image"] for app in there(rig)] == [IMAGE]


async def test_what_ends_a_replacement_halfway_leaves_nothing_billed(rig: Rig) -> None:
    rig.cloud.timing = Timing(stop_s=0.05, delete_s=0.05)
    backend = rig.open(image=None)
    await deployed(backend, IMAGE)
    steps = backend.deploy(OTHER)
    assert isinstance(steps, AsyncGenerator)
    await anext(steps)
    await steps.aclose()
    await backend.aclose()
    backend = rig.open(image=None)
    await deployed(backend, OTHER)
    await backend.aclose()

    assert [app.spec["image"] for app in there(rig)] == [OTHER]
    assert rig.cloud.paid == []


async def test_the_app_that_a_killed_deployment_left_running_is_stopped_by_the_next(
    rig: Rig,
) -> None:
    rig.cloud.timing = Timing(stop_s=0.05, delete_s=0.05)
    killed = rig.open(image=None)
    await deployed(killed, IMAGE)
    await killed.start(LaunchId("deployed17"))
    assert len(rig.cloud.paid) == 1
    await killed.aclose()
    backend = rig.open(image=None)
    await deployed(backend, IMAGE)
    await backend.aclose()

    assert rig.cloud.paid == []
    assert [app.spec["image"] for app in there(rig)] == [IMAGE]


async def test_a_replacement_leaves_what_a_copy_of_the_state_folder_lives_by(
    rig: Rig,
) -> None:
    first = rig.open(image=None)
    await deployed(first, IMAGE)
    await first.start(LAUNCH)
    await first.aclose()
    rig.notes.clear()
    rig.remembers = lambda _launch_id: False
    copy = rig.open(image=None)
    with pytest.raises(TwinError, match="another proxy uses a copy"):
        await deployed(copy, OTHER)
    await copy.aclose()

    assert [app.spec["image"] for app in there(rig)] == [IMAGE]
    assert len(rig.cloud.paid) == 1


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ("down", "answered 503"),
        ("absent", "there is no image"),
        ("stock", "not built from cloud-init/container"),
    ],
)
async def test_an_image_that_check_refuses_is_not_deployed(
    rig: Rig, tag: str, says: str
) -> None:
    backend = rig.open(image=None)
    with pytest.raises(BackendError, match=says):
        await deployed(backend, f"{IMAGE.rpartition(':')[0]}:{tag}")
    await backend.aclose()

    assert rig.cloud.made == 0


async def test_a_registry_that_is_not_there_has_nothing_deployed(rig: Rig) -> None:
    backend = rig.open(image=None)
    with pytest.raises(TransientError, match="can't be read"):
        await deployed(backend, "127.0.0.1:9/team/ollama:1")
    await backend.aclose()

    assert rig.cloud.made == 0


async def test_an_image_that_only_ai_deploy_may_read_is_deployed(rig: Rig) -> None:
    backend = rig.open(image=None)
    await deployed(backend, f"{IMAGE.rpartition(':')[0]}:private")
    await backend.aclose()

    assert rig.cloud.made == 1
    assert rig.cloud.paid == []


async def test_a_token_that_may_only_read_deploys_nothing(rig: Rig) -> None:
    backend = rig.open(image=None)
    await deployed(backend, IMAGE)
    rig.server.may_write = False
    with pytest.raises(CredentialsError, match="role operator"):
        await deployed(backend, OTHER)
    await backend.aclose()

    assert [app.spec["image"] for app in there(rig)] == [IMAGE]
    assert rig.cloud.paid == []


@pytest.mark.parametrize("wrong", ["card", "token"])
async def test_a_region_to_fall_back_on_that_can_not_work_is_refused(
    rig: Rig, wrong: str
) -> None:
    if rig.driver == "cli":
        pytest.skip("the command's log-in holds for every region")
    token = token_of("BHS") if wrong == "card" else "revoked-token-0003"
    backend = rig.open(
        image=None,
        fallback_regions="BHS",
        gpu_model="L4" if wrong == "card" else "L40S",
        region_tokens={"BHS": token},
    )
    findings = {one.subject: one.ok for one in await backend.check()}
    with pytest.raises(SpecError if wrong == "card" else CredentialsError):
        await deployed(backend, IMAGE)
    await backend.aclose()

    assert not findings["region BHS"]
    assert rig.cloud.made == 0


async def test_a_deletion_leaves_what_a_copy_of_the_state_folder_lives_by(
    rig: Rig,
) -> None:
    first = rig.open(image=None)
    await deployed(first, IMAGE)
    await first.start(LAUNCH)
    await first.aclose()
    rig.notes.clear()
    rig.remembers = lambda _launch_id: False
    copy = rig.open(image=None)
    with pytest.raises(TwinError, match=rf"app .*\(launch {LAUNCH}\)"):
        async for _ in copy.remove():
            pass
    await copy.aclose()

    assert len(rig.cloud.paid) == 1
    assert len(there(rig)) == 1


@pytest.mark.parametrize("image", [None, OTHER], ids=["delete", "deploy"])
async def test_what_a_killed_command_had_deleted_is_waited_for_by_the_next(
    rig: Rig, image: str | None
) -> None:
    stranger = rig.cloud.stranger()
    backend = rig.open(image=None)
    await deployed(backend, IMAGE)
    (old,) = [one for one in there(rig) if one is not stranger]
    rig.cloud.timing = Timing(delete_s=1000.0)
    for one in (old, stranger):
        one.changes.append((rig.cloud.now(), "delete"))
    steps = backend.remove() if image is None else backend.deploy(image)
    async with asyncio.timeout(60):
        first = await anext(steps)
        rest = asyncio.ensure_future(_all(steps))
        done, _ = await asyncio.wait({rest}, timeout=0.3)
        made = rig.cloud.made
        rig.cloud.timing = Timing()  # it is deleted from now on
        await rest
    await backend.aclose()

    assert first.startswith(f"waiting for app {old.id} in GRA")
    assert (done, made) == (set(), 1)
    assert [one.spec["image"] for one in there(rig)] == ([image] if image else [])


async def _all(steps: AsyncIterator[str]) -> list[str]:
    return [step async for step in steps]
