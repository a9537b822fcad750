"""Two offers in one account: each has its own app, and its own deployment."""

import asyncio

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.offer_tag import OfferTag
from tests.backends.ovh.rig import IMAGE, Rig
from tests.backends.ovh.test_commands import typed
from tests.backends.ovh.test_deploy import deployed

LAUNCH = LaunchId("l0123456789abcdef")


async def test_the_deployment_of_one_leaves_the_others_app_alone(rig: Rig) -> None:
    rig.offer = OfferTag("", frozenset({"large"}))
    small = rig.open(image=None)
    rig.offer = OfferTag("large", frozenset({""}), takes_leftovers=False)
    large = rig.open(image=None, gpu_count=2)
    await deployed(small)
    await deployed(large)
    await deployed(small, f"{IMAGE}-2")
    found = [await small.owned(), await large.owned()]
    there = [one for one in rig.cloud.apps.values() if rig.cloud.is_there(one)]
    for backend in (small, large):
        await backend.aclose()

    offers = {one.labels.get("ollama-proxy-offer"): one.spec["image"] for one in there}
    assert offers == {None: f"{IMAGE}-2", "large": IMAGE}
    assert found == [set(), set()]


async def test_the_variables_of_an_offer_reach_ollama(rig: Rig) -> None:
    rig.environment = {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_KEEP_ALIVE": "30m"}
    backend = rig.open(idle_action="delete")
    await backend.start(LAUNCH)
    (app,) = rig.cloud.paid
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert app.environment.items() >= rig.environment.items()


async def test_an_app_with_other_variables_is_made_anew(rig: Rig) -> None:
    backend = rig.open(image=None)
    await deployed(backend)
    await backend.aclose()
    rig.environment = {"OLLAMA_NUM_PARALLEL": "4"}
    backend = rig.open(image=None)
    steps = await deployed(backend)
    await backend.aclose()

    assert "there already" not in steps[-1]
    assert rig.cloud.made == 2


async def test_two_launches_at_once_never_share_the_app_that_stands_by(
    rig: Rig,
) -> None:
    backend = rig.open(image=None)
    await deployed(backend)
    other = LaunchId("lfedcba9876543210")
    await asyncio.gather(backend.start(LAUNCH), backend.start(other))
    found = set(await backend.owned())
    paid = len(rig.cloud.paid)
    for launch_id in (LAUNCH, other):
        await backend.stop(launch_id)
    await backend.aclose()

    assert found == {LAUNCH, other}
    assert paid == 2


async def test_a_launch_is_ended_without_its_offer_from_the_command_line(
    rig: Rig,
) -> None:
    """The key is in the environment; the offer itself is in no file any more."""
    large, other = rig.folder / "large.toml", rig.folder / "other.toml"
    await asyncio.to_thread(
        large.write_text,
        f'[offers.large]\nbackend = "ovh"\ngpu_count = 2\nimage = "{IMAGE}"\n',
    )
    await asyncio.to_thread(
        other.write_text, '[offers.here]\nbackend = "local"\nsimulator = "always"\n'
    )
    started = await typed(rig, "start", "--config", str(large))
    refused = await typed(rig, "check", "--config", str(other))
    launch_id = refused.stderr.partition("stop --launch ")[2].partition("`")[0]
    paid = len(rig.cloud.paid)
    stopped = await typed(rig, "stop", "--launch", launch_id, "--config", str(other))
    checked = await typed(rig, "check", "--config", str(other))

    assert started.returncode == 0, started.stderr
    assert (refused.returncode, paid) == (2, 1), refused.stderr
    assert "is on record for the offer 'large' of the backend 'ovh'" in refused.stderr
    assert stopped.stderr == ""
    assert stopped.stdout == f"stopped {launch_id} of the offer large\n"
    assert rig.cloud.paid == []
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_of_several_offers_one_is_deployed_and_all_are_deleted(rig: Rig) -> None:
    both = rig.folder / "both.toml"
    await asyncio.to_thread(
        both.write_text,
        '[offers.small]\nbackend = "ovh"\n[offers.large]\nbackend = "ovh"\n'
        'gpu_count = 2\n[offers.here]\nbackend = "local"\nsimulator = "always"\n',
    )
    config = ("--config", str(both))
    unclear = await typed(rig, "deploy", IMAGE, *config)
    for offer in ("small", "large"):
        done = await typed(rig, "deploy", IMAGE, "--offer", offer, *config)
        assert done.returncode == 0, done.stderr
    shown = await typed(rig, "status", *config)
    there = [one for one in rig.cloud.apps.values() if rig.cloud.is_there(one)]
    gone = await typed(rig, "delete", "--yes", *config)

    assert unclear.returncode == 2
    assert "name one: --offer small, large, here" in unclear.stderr
    assert len(there) == 2
    lines = [line for line in shown.stdout.splitlines() if "STOPPED" in line]
    assert [line.partition(": ")[0] for line in lines] == ["small", "large"]
    assert gone.returncode == 0, gone.stderr
    assert "here: nothing of it is deployed" in gone.stdout
    assert not [one for one in rig.cloud.apps.values() if rig.cloud.is_there(one)]
