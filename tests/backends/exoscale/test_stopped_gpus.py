"""Stopped instances with a GPU and without our label are reported, and left alone."""

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Finding
from tests.backends.exoscale.rig import Rig


def stopped(rig: Rig, family: str, zone: str = "at-vie-2") -> str:
    """Have a stranger's instance of a family be stopped; return its id."""
    kinds = {one["family"]: one["id"] for one in rig.cloud.types(zone)}
    one = rig.cloud.stranger(zone)
    one.body["instance-type"] = {"id": kinds[family]}
    one.stopped_at = rig.cloud.now()
    return one.id


async def told(rig: Rig, **settings: str) -> list[Finding]:
    backend = rig.open(**settings)
    findings = await backend.check()
    await backend.aclose()
    return [one for one in findings if one.subject == "stopped GPU instance"]


async def test_one_is_told_with_its_disk_and_that_nobody_knows_whose_it_is(
    rig: Rig,
) -> None:
    instance_id = stopped(rig, "gpua5000")
    (found,) = await told(rig, disk_price="0.0002")

    assert found.ok
    assert found.warns
    assert "theirs in at-vie-2, gpua5000.small, disk 50 GiB, 0.01 per" in found.detail
    assert "nobody here knows whose it is" in found.detail
    assert instance_id in found.detail


async def test_other_zones_of_the_settings_are_looked_at(rig: Rig) -> None:
    stopped(rig, "gpu3", "de-fra-1")

    assert await told(rig) == []
    assert len(await told(rig, fallback_zones="de-fra-1")) == 1


async def test_neither_what_runs_nor_what_has_no_gpu_nor_ours_is_told(rig: Rig) -> None:
    stopped(rig, "standard")
    rig.cloud.stranger().body["instance-type"] = {
        "id": rig.cloud.types("at-vie-2")[1]["id"]
    }
    ours = rig.open()
    await ours.start(LaunchId("l1111111111111111"))
    await ours.aclose()
    (bought,) = rig.cloud.paid
    bought.stopped_at = rig.cloud.now()

    assert await told(rig) == []
