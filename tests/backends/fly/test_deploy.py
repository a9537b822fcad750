"""`deploy`, `delete`, `sweep` and `check`, and settings that can't work."""

import asyncio
from subprocess import CompletedProcess
from unittest.mock import AsyncMock

import pytest

from ollama_proxy.backends.base.image_registry import GUARDED, Image
from ollama_proxy.backends.fly import image as fly_image
from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.backends.fly.sizes import SIZES
from ollama_proxy.base.errors import CredentialsError, SettingsError, SpecError
from ollama_proxy.config.loader import load_settings
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Finding
from tests.backends.fly.rig import IMAGE, Rig
from tests.black_box import run_cli
from tests.fakes.fly.server import TOKEN
from tests.ports import address_of_nobody

LAUNCH = LaunchId("l0123456789abcdef")


async def typed(rig: Rig, *words: str, **more: str) -> "CompletedProcess[str]":
    """Run the command line while the fake answers."""
    env = {
        "OLLAMA_HOST": address_of_nobody(),
        "OLLAMA_PROXY_STATE_DIR": str(rig.folder / "state"),
        "FLY_FLAPS_BASE_URL": rig.server.url,
        "FLY_API_TOKEN": TOKEN,
        "FLY_APP": "fresh",
    }
    return await asyncio.to_thread(run_cli, *words, **(env | more))


async def test_everything_is_deployed_told_and_removed(rig: Rig) -> None:
    # Four processes in 3 s, and each keeps its own limit of 3 calls in 3 s.
    rig.server.is_paced = False
    made = await typed(rig, "deploy", IMAGE)
    app = rig.cloud.apps["fresh"]
    addresses, volumes = dict(app.addresses), len(app.volumes)
    again = await typed(rig, "deploy", IMAGE)
    swept = await typed(rig, "sweep", "--dry-run")
    gone = await typed(rig, "delete", "--yes")

    assert (made.returncode, again.returncode, gone.returncode) == (0, 0, 0), (
        made.stderr + again.stderr + gone.stderr
    )
    assert set(addresses.values()) == {"shared_v4", "v6"}
    assert (volumes, len(app.volumes)) == (1, 1)
    assert "while idle it costs at most 2.40 a month" in made.stdout
    assert "kept: volume vol_" in swept.stdout
    assert "8 GB: 1.20 a month" in swept.stdout
    assert "kept: address 66.241.1.1 (shared_v4): free" in swept.stdout
    steps = [line.split()[0] for line in gone.stdout.splitlines()]
    assert steps == ["deleting", "releasing", "releasing", "deleting", "nothing"]
    assert "fresh" not in rig.cloud.apps


async def test_an_app_that_was_not_made_here_stays(rig: Rig) -> None:
    stranger = rig.cloud.stranger(rig.app)
    await typed(rig, "deploy", IMAGE, FLY_APP="llm")
    gone = await typed(rig, "delete", "--yes", FLY_APP="llm")

    assert "was not made here, so it stays" in gone.stdout
    assert rig.app.machines == {stranger.id: stranger}
    assert rig.cloud.volumes() == []


async def test_what_runs_is_removed_in_order(rig: Rig) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    rig.server.calls.clear()
    async with asyncio.timeout(20):
        told = [step async for step in backend.remove()]
    await backend.aclose()
    calls = rig.server.calls

    assert told[-1] == "nothing of this deployment is left"
    assert calls.index("Machines_delete") < calls.index("Volume_delete")
    assert rig.cloud.paid == []
    assert rig.cloud.volumes() == []


async def test_without_an_image_a_launch_says_what_to_do(rig: Rig) -> None:
    backend = rig.open(image=None)
    with pytest.raises(SpecError, match="ollama-proxy deploy IMAGE"):
        await backend.start(LAUNCH)
    await backend.aclose()

    assert rig.cloud.machines() == []
    assert rig.cloud.volumes() == []


async def test_a_private_app_gets_no_public_address(rig: Rig) -> None:
    await typed(rig, "deploy", IMAGE, FLY_ACCESS="flycast")

    assert set(rig.cloud.apps["fresh"].addresses.values()) == {"private_v6"}


async def test_an_unknown_region_makes_nothing(rig: Rig) -> None:
    refused = await typed(rig, "deploy", IMAGE, FLY_FALLBACK_REGIONS="ams,xyz")

    assert refused.returncode != 0
    assert "FLY_FALLBACK_REGIONS: there is no region 'xyz'" in refused.stderr
    assert "regions: ams, fra, iad" in refused.stderr
    assert "fresh" not in rig.cloud.apps


async def test_an_app_of_somebody_keeps_none_of_our_addresses(rig: Rig) -> None:
    rig.app.addresses["2a09::7"] = "v6"
    await typed(rig, "deploy", IMAGE, FLY_APP="llm")
    made = set(rig.app.addresses)
    await typed(rig, "delete", "--yes", FLY_APP="llm")

    assert made == {"2a09::7", "66.241.1.1"}
    assert set(rig.app.addresses) == {"2a09::7"}


async def test_without_an_app_nothing_fails(rig: Rig) -> None:
    swept = await typed(rig, "sweep")
    gone = await typed(rig, "delete", "--yes")

    assert "nothing of ours runs" in swept.stdout
    assert "404" not in swept.stdout + swept.stderr + gone.stdout + gone.stderr
    assert (swept.returncode, gone.returncode) == (0, 0)


def image(gib: float, labels: dict[str, str] | None = None) -> Image:
    guarded = {GUARDED: "1"} if labels is None else labels
    return Image("sha256:1", int(gib * (1 << 30)), "root", guarded)


@pytest.mark.parametrize(
    ("name", "found", "says"),
    [
        ("ghcr.io/me/x:1", CredentialsError("private"), "registry.fly.io/APP:TAG"),
        ("ghcr.io/me/x:1", image(9.0), "9.0 GiB compressed"),
        ("ghcr.io/me/x:1", image(1.0, {}), "not built from cloud-init/container"),
        ("ghcr.io/me/x:1", SpecError("there is no image"), "there is no image"),
    ],
)
async def test_an_image_that_fly_cannot_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, found: Image | Exception, says: str
) -> None:
    monkeypatch.setattr(fly_image, "look_at", AsyncMock(side_effect=[found]))

    with pytest.raises(SpecError, match=says):
        await fly_image.examined(name)


async def test_an_image_of_the_apps_own_registry_is_pushed_after_the_app_is_made(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = AsyncMock(side_effect=CredentialsError("private"))
    monkeypatch.setattr(fly_image, "look_at", private)
    backend = rig.open(image=None)
    told = [step async for step in backend.deploy("registry.fly.io/llm:1")]
    await backend.aclose()

    assert "`docker push registry.fly.io/llm:1`" in "\n".join(told)


@pytest.mark.parametrize(("gib", "is_large"), [(1.0, False), (5.0, True)])
def test_the_compressed_size_is_not_taken_for_the_one_that_is_limited(
    gib: float, is_large: bool
) -> None:
    told = fly_image.size_words(image(gib))

    assert f"{gib:.1f} GiB compressed" in told
    assert ("probably too large" in told) == is_large


def by_subject(findings: list[Finding]) -> dict[str, tuple[bool, str]]:
    return {one.subject: (one.ok, one.detail) for one in findings}


async def test_check_examines_without_making_anything(rig: Rig) -> None:
    rig.app.addresses["66.241.1.1"] = "shared_v4"
    backend = rig.open()
    found = by_subject(await backend.check())
    await backend.aclose()

    assert found["token"] == (True, "for the app(s) llm")
    assert found["app"] == (True, "llm, 0 machine(s)")
    assert found["regions"] == (True, "fra")
    assert found["room"] == (True, "shared-cpu-1x, 2048 MB in fra")
    assert "nothing without the machine's token" in found["exposure"][1]
    assert found["price"][1].startswith("unknown; idle: volume 1.20 a month")
    assert rig.cloud.machines() == []


async def test_check_names_what_is_wrong(rig: Rig) -> None:
    rig.cloud.full = {"fra"}
    rig.server.token = {"org_slug": "personal"}
    rig.app.addresses["2a09::1"] = "v6"
    backend = rig.open(access="flycast", fallback_regions="xyz")
    found = by_subject(await backend.check())
    await backend.aclose()

    assert "more than is needed" in found["token"][1]
    assert not found["regions"][0]
    assert "regions: ams, fra, iad" in found["regions"][1]
    assert not found["room"][0]
    assert not found["exposure"][0]
    assert "2a09::1" in found["exposure"][1]


async def test_check_says_when_the_token_is_wrong(rig: Rig) -> None:
    rig.server.always["CurrentToken_show"] = "401"
    backend = rig.open()
    (found,) = await backend.check()
    await backend.aclose()

    assert not found.ok
    assert "FLY_API_TOKEN" in found.detail


def faults(**env: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings({"FLY_API_TOKEN": "t", "FLY_APP": "llm"} | env)
    return "\n".join(caught.value.faults)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"FLY_VM_SIZE": "a100-40gb"}, "GPU machines ended on 2026-08-01"),
        ({"FLY_GPU_KIND": "l40s"}, "GPU machines ended on 2026-08-01"),
        ({"FLY_VM_SIZE": "shared-cpu-3x"}, "known: shared-cpu-1x"),
        ({"FLY_VM_MEMORY": "4096"}, "is not between 256 and 2048"),
        ({"FLY_VM_MEMORY": "1000"}, "multiple of 256"),
        ({"FLY_APP": ""}, "FLY_APP: the backend 'fly' needs"),
        (
            {"FLY_IDLE_ACTION": "suspend", "FLY_VM_SIZE": "shared-cpu-2x"},
            "suspends up to 2048 MB",
        ),
        ({"FLY_KEEP_VOLUME": "false"}, "write FLY_IDLE_ACTION=destroy"),
        ({"FLY_FALLBACK_REGIONS": "fra,frankfurt"}, "'frankfurt' is not a region"),
        ({"OLLAMA_MODEL": "llama3.1:8b"}, "wants about 5.8 GB of memory"),
    ],
)
def test_what_cannot_work_is_refused_at_start(env: dict[str, str], says: str) -> None:
    assert says in faults(**env)


def test_the_smallest_machine_takes_the_smallest_model() -> None:
    settings = load_settings(
        {
            "FLY_API_TOKEN": "t",
            "FLY_APP": "llm",
            "OLLAMA_MODEL": "llama3.2:1b",
        }
    )

    assert settings.selection.backend == "fly"
    assert settings.of(FlySettings).guest.memory_mb == 2048


def test_every_size_has_memory_that_fly_allows() -> None:
    assert [name for name, size in SIZES.items() if size.problem()] == []


@pytest.mark.parametrize(
    ("access", "url"),
    [
        ("public", "https://llm.fly.dev"),
        ("flycast", "http://llm.flycast"),
        ("6pn", "http://abc.vm.llm.internal:8080"),
    ],
)
def test_a_machine_is_reached_by_the_access_that_is_meant(
    access: str, url: str
) -> None:
    settings = FlySettings.model_validate({"app": "llm", "access": access})

    assert settings.url_of("abc") == url
