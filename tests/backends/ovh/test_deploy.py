"""`deploy`, `status`, `stop`, `delete` and `check`, and settings that can't work."""

import asyncio
from pathlib import Path

import pytest

from ollama_proxy.backends.ovh.backend import OvhBackend
from ollama_proxy.backends.ovh.flavors import Flavor, GpuInformation, find_flavor
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.backends.ovh.volume import parse_volume
from ollama_proxy.base.errors import SettingsError, SpecError
from ollama_proxy.config.loader import load_settings
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Finding, Phase
from tests.backends.ovh.rig import IMAGE, Rig, ovh_rig
from tests.fakes.ovh.cloud import Timing

LAUNCH = LaunchId("l0123456789abcdef")


async def deployed(backend: OvhBackend, image: str = IMAGE) -> list[str]:
    async with asyncio.timeout(10):
        return [step async for step in backend.deploy(image)]


async def test_an_app_is_deployed_once_and_stopped(rig: Rig) -> None:
    rig.cloud.timing = Timing(scale_s=0.1, stop_s=0.1)
    backend = rig.open(image=None)
    first = await deployed(backend)
    second = await deployed(backend)
    told = await backend.deployed()
    await backend.aclose()

    assert "STOPPED" in first[-1]
    assert "STOPPED" in second[-1]
    assert "there already" in second[-1]
    assert rig.cloud.made == 1
    assert rig.cloud.paid == []
    assert len(told) == 1
    assert "l4-1-gpu, STOPPED, http://" in told[0]


async def test_what_was_deployed_is_what_a_launch_starts(rig: Rig) -> None:
    backend = rig.open(image=None)
    await deployed(backend)
    await backend.aclose()
    backend = rig.open(image=None)
    await backend.start(LAUNCH)
    (app,) = rig.cloud.paid
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert (rig.cloud.made, rig.cloud.starts) == (1, 1)
    assert app.spec["image"] == IMAGE


async def test_without_an_image_a_launch_says_what_to_do(rig: Rig) -> None:
    backend = rig.open(image=None)
    with pytest.raises(SpecError, match="ollama-proxy deploy IMAGE"):
        await backend.start(LAUNCH)
    await backend.aclose()

    assert rig.cloud.made == 0


async def test_an_image_without_a_tag_is_not_deployed(rig: Rig) -> None:
    backend = rig.open(image=None)
    with pytest.raises(SpecError, match="no tag"):
        await deployed(backend, "registry.example/ollama")
    await backend.aclose()


async def test_everything_is_removed_and_strangers_are_not(rig: Rig) -> None:
    stranger = rig.cloud.stranger()
    rig.cloud.timing = Timing(stop_s=0.1, delete_s=0.1)
    backend = rig.open()
    await deployed(backend)
    await backend.start(LAUNCH)
    await backend.start(LaunchId("l1"))
    async with asyncio.timeout(10):
        told = [step async for step in backend.remove()]
    seen = await backend.inspect(LAUNCH)
    await asyncio.sleep(0.15)
    await backend.aclose()

    assert told[-1] == "nothing of this deployment is left"
    assert seen.phase is not Phase.RUNNING
    there = [app for app in rig.cloud.apps.values() if rig.cloud.is_there(app)]
    assert there == [stranger]


def by_subject(findings: list[Finding]) -> dict[str, tuple[bool, str]]:
    return {one.subject: (one.ok, one.detail) for one in findings}


async def test_check_examines_without_making_anything(rig: Rig) -> None:
    backend = rig.open(gpu_model="A100-80GB", gpu_count=2)
    found = by_subject(await backend.check())
    await backend.aclose()

    assert found["log-in"][0]
    assert "role AI_TRAINING_OPERATOR, quota CPU 12, GPU 4" in found["log-in"][1]
    assert found["flavour"] == (True, "a100-1-gpu × 2, up to 2")
    assert found["price"] == (True, "unknown")
    assert rig.cloud.apps == {}


async def test_check_names_what_a_region_sells(rig: Rig) -> None:
    backend = rig.open(gpu_model="H100", region="BHS")
    found = by_subject(await backend.check())
    await backend.aclose()

    ok, told = found["flavour"]
    assert not ok
    assert "flavours there: ai1-1-cpu, ai1-1-gpu, l40s-1-gpu" in told


async def test_check_hints_at_the_other_world(rig: Rig) -> None:
    rig.server.always["me"] = "401"
    backend = rig.open(region="us-east-va")
    (found,) = await backend.check()
    await backend.aclose()

    assert not found.ok
    assert "OVHcloud US only" in found.detail


FLAVORS = [
    Flavor("a100-1-gpu", 4, GpuInformation("A100", 42_000_000_000)),
    Flavor("a100-2-gpu", 4, GpuInformation("NVIDIA A100", 85_000_000_000)),
    Flavor("l4-1-gpu", 4, None),
    Flavor("l40s-1-gpu", None, GpuInformation("L40S", None)),
]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("L4", "l4-1-gpu"),
        ("l40s", "l40s-1-gpu"),
        ("A100", "a100-1-gpu"),
        ("A100-80GB", "a100-2-gpu"),
        ("L40S-48GB", "l40s-1-gpu"),
    ],
)
def test_the_words_of_a_card_name_a_flavour(model: str, expected: str) -> None:
    found = find_flavor(FLAVORS, flavor_id=None, gpu_model=model, count=1, region="GRA")

    assert found.id == expected


def test_more_cards_than_a_flavour_has_are_refused() -> None:
    with pytest.raises(SpecError, match="GPU_COUNT 9 is too many"):
        find_flavor(FLAVORS, flavor_id=None, gpu_model="L4", count=9, region="GRA")


def test_a_volume_is_translated() -> None:
    volume = parse_volume("models@S3/llama:/models:ro:cache")

    assert volume.argument == "models@S3/llama:/models:ro:cache"
    assert parse_volume("m@GRA:/m").argument == "m@GRA:/m:ro:cache"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ollama@GRA:/var/lib/ollama:rw", "does not write a volume back"),
        ("ollama@GRA:/var/lib/ollama:rw", "ollama@GRA:/var/lib/ollama:ro:cache"),
        ("ollama:/var/lib/ollama", "is not a volume"),
        ("m@GRA:/m:ro:often", "cache or no-cache"),
    ],
)
def test_a_volume_that_cannot_work_is_refused_with_what_to_write(
    text: str, says: str
) -> None:
    with pytest.raises(ValueError, match=r"volume|cache") as caught:
        parse_volume(text)

    assert says in str(caught.value)


def faults(**env: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(env)
    return "\n".join(caught.value.faults)


def test_the_seeds_words_are_settings(tmp_path: Path) -> None:
    settings = load_settings(
        {
            "OVH_AI_TOKEN": "t",
            "OVH_DRIVER": "rest",
            "GPU_MODEL": "H100",
            "GPU_COUNT": "2",
            "OVH_REGION": "bhs",
            "OLLAMA_VOLUME": "m@GRA:/m:ro",
            "PRELOAD_MODELS": "llama3.2,qwen3",
        }
    )

    assert settings.selection.backend == "ovh"
    assert settings.of(OvhSettings).gpu_model == "H100"
    assert settings.of(OvhSettings).regions == ("BHS",)
    assert settings.models == ("llama3.2", "qwen3")


def test_what_cannot_work_is_refused_at_start() -> None:
    volume = faults(OVH_AI_TOKEN="t", OLLAMA_VOLUME="o@GRA:/var/lib/ollama:rw")

    assert "OLLAMA_VOLUME: 'o@GRA" in volume
    assert "OVH_AI_TOKEN: the API needs" in faults(
        OVH_AI_CALL_TOKEN="t", OVH_DRIVER="rest"
    )
    assert "others on this machine can read" in faults(
        OVH_AI_TOKEN="t", OVH_DRIVER="cli", OVHAI_BIN="sh"
    )
    assert "there is no program" in faults(
        OVH_AI_CALL_TOKEN="t", OVH_DRIVER="cli", OVHAI_BIN="/no/ovhai"
    )
    assert "OVH_AI_CALL_TOKEN: the app's URL" in faults(
        OLLAMA_PROXY_BACKEND="ovh", OVH_DRIVER="cli", OVHAI_BIN="sh"
    )
    assert "one needs the other" in faults(
        OVH_AI_CALL_TOKEN="t", OVH_AI_USERNAME="u", OVH_DRIVER="cli", OVHAI_BIN="sh"
    )


def test_each_world_has_an_address_of_its_own() -> None:
    settings = OvhSettings()

    assert settings.url_of("GRA") == "https://gra.ai.cloud.ovh.net"
    assert settings.url_of("US-EAST-VA") == "https://us-east-va.ai.cloud.ovh.us"


async def test_check_tells_that_a_token_may_only_read(rig: Rig) -> None:
    rig.server.may_write = False
    backend = rig.open()
    found = by_subject(await backend.check())
    await backend.aclose()

    named = "OVH_AI_TOKEN" if rig.driver == "rest" else "log-in"
    assert not found["rights"][0]
    assert named in found["rights"][1]
    assert "role operator" in found["rights"][1]


async def test_check_tells_that_it_can_not_say_whether_apps_may_be_changed(
    rig: Rig,
) -> None:
    rig.server.script["stop"] = ["500"]
    backend = rig.open()
    found = by_subject(await backend.check())
    await backend.aclose()

    assert found["rights"][0]
    assert "could not be verified" in found["rights"][1]


async def test_check_changes_nothing_to_see_whether_apps_may_be_changed(
    rig: Rig,
) -> None:
    stranger = rig.cloud.stranger()
    backend = rig.open()
    found = by_subject(await backend.check())
    await backend.aclose()

    assert found["rights"][0]
    assert [what for _, what in stranger.changes] == ["start"]
    assert rig.cloud.made == 0


@pytest.mark.parametrize("region", ["GAR", "GRA-9", "EU"])
def test_a_region_that_is_misspelt_is_named_with_those_that_are_known(
    region: str,
) -> None:
    given = {"driver": "rest", "ai_token": "t", "region": region}
    (fault,) = OvhSettings.model_validate(given).faults()

    assert f"{region!r} is no region" in fault
    assert "GRA, BHS, US-EAST-VA" in fault


def test_a_region_behind_an_address_of_ones_own_is_taken_as_it_is() -> None:
    given = {"driver": "rest", "ai_token": "t", "region": "SBG"}
    settings = OvhSettings.model_validate(given | {"api_url": "https://a.example"})

    assert settings.faults() == []


async def test_a_large_image_and_a_loaded_processor_are_waited_for(
    tmp_path: Path,
) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open()
        await backend.start(LaunchId("l0123456789abcdef"))
        (app,) = rig.cloud.apps.values()
        await backend.stop(LaunchId("l0123456789abcdef"))
        await backend.aclose()

    automatic = app.spec["scalingStrategy"]["automatic"]
    assert app.spec["deploymentStrategy"] == {"progressDeadlineSeconds": 3600}
    assert app.spec["probe"]["timeoutSeconds"] == 10
    assert automatic["scaleDownStabilizationWindowSeconds"] == 1800
