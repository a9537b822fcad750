"""What is deleted or estranged is still the named owner's, by the cloud's own word."""

from dataclasses import replace

from ollama_proxy.base.errors import NotFoundError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Belonging
from tests.backends.base.toy.backend import TAGS, Box, ToyCloud, ToyOwners
from tests.backends.base.toy.provider import Provider

THEIRS, OTHERS = "0123456789abcdef", "fedcba9876543210"


class ForgetfulCloud(ToyCloud):
    """Shows a box until a deletion is requested, then answers that it is unknown."""

    async def delete(self, location: str, resource: Box) -> None:
        raise NotFoundError(f"there is no box {resource.id}")


def a_box(provider: Provider) -> str:
    key, value = TAGS.manager
    tags = {"owner": THEIRS, "launch": "l1", "lease": "5", "spec": "v1"}
    return provider.create("south", {key: value, **TAGS.spelt(tags)})


async def the_belonging(owners: ToyOwners) -> Belonging:
    [found] = await owners.belongings()
    return found


async def test_a_deletion_is_one_step_and_the_next_look_tells_that_it_is_over() -> None:
    provider = Provider()
    a_box(provider)
    owners = ToyOwners(ToyCloud(provider))
    one = await the_belonging(owners)
    assert not await owners.discard(one)
    assert await owners.discard(one)
    assert provider.boxes == {}


async def test_what_is_unknown_at_its_deletion_is_over() -> None:
    provider = Provider()
    a_box(provider)
    owners = ToyOwners(ForgetfulCloud(provider))
    assert await owners.discard(await the_belonging(owners))


async def test_what_is_another_owners_by_now_is_neither_deleted_nor_changed() -> None:
    provider = Provider()
    box = a_box(provider)
    owners = ToyOwners(ToyCloud(provider))
    one = replace(await the_belonging(owners), owner_id=OTHERS)
    before = provider.box(box).copy()
    await owners.estrange(one)
    assert await owners.discard(one)
    assert provider.box(box) == before


async def test_what_is_being_deleted_already_is_not_deleted_again() -> None:
    provider = Provider()
    box = a_box(provider)
    owners = ToyOwners(ToyCloud(provider))
    one = await the_belonging(owners)
    provider.switch(box, "scrapped")
    assert await owners.discard(one)
    assert box in provider.boxes


async def test_what_is_estranged_fits_no_launch_and_keeps_its_other_tags() -> None:
    provider = Provider()
    a_box(provider)
    cloud = ToyCloud(provider)
    owners = ToyOwners(cloud)
    await owners.estrange(await the_belonging(owners))
    [box] = await cloud.list("south")
    assert box.tag("spec") == "adopted"
    assert (box.tag("owner"), box.launch) == (THEIRS, LaunchId("l1"))


async def test_what_is_no_instance_is_not_estranged() -> None:
    provider = Provider()
    box = a_box(provider)
    owners = ToyOwners(ToyCloud(provider))
    before = provider.box(box).copy()
    await owners.estrange(replace(await the_belonging(owners), launch_id=None))
    assert provider.box(box) == before


async def test_what_is_gone_is_not_estranged() -> None:
    provider = Provider()
    box = a_box(provider)
    owners = ToyOwners(ToyCloud(provider))
    one = await the_belonging(owners)
    provider.scrap(box)
    await owners.estrange(one)
    assert provider.boxes == {}
