"""Names that users of the older controller have in their environment."""

from pathlib import Path

import pytest

from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.settings import Settings
from tests.backends.ovh.rig import IMAGE, Rig
from tests.backends.ovh.test_commands import typed
from tests.fakes.ovh.server import token_of

OLD = {
    "OVH_TOKEN": "old-token-1",
    "OVH_REGION": "US-EAST-VA",
    "GPU_MODEL": "L40S",
    "GPU_COUNT": "2",
    "PRELOAD_MODELS": "llama3.2,nomic-embed-text",
    "OLLAMA_VOLUME": "models@US-EAST-VA:/var/lib/ollama:ro",
}


def loaded(folder: Path, **env: str) -> Settings:
    return load_settings(env | {"OLLAMA_PROXY_STATE_DIR": str(folder)})


def faults(folder: Path, **env: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        loaded(folder, **env)
    return list(caught.value.faults)


def test_what_can_be_honoured_of_the_old_environment_is(tmp_path: Path) -> None:
    settings = loaded(tmp_path, **OLD)
    ovh = settings.of(OvhSettings)

    assert settings.selection.backend == "ovh"
    assert ovh.api_token("US-EAST-VA") == "old-token-1"
    assert ovh.url_token("US-EAST-VA") == "old-token-1"
    assert (ovh.gpu_model, ovh.gpu_count) == ("L40S", 2)
    assert settings.models == ("llama3.2", "nomic-embed-text")


def test_the_newer_name_of_the_token_wins(tmp_path: Path) -> None:
    settings = loaded(tmp_path, **OLD, OVH_AI_TOKEN="new")

    assert settings.of(OvhSettings).api_token("US-EAST-VA") == "new"


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("CPU_COUNT", "memory follow from the flavour"),
        ("MEMORY_SIZE", "OVH_FLAVOR"),
        ("OVHAI_BASIC_AUTH_USER", "OVH_AI_TOKEN"),
        ("OVHAI_BASIC_AUTH_PASSWORD", "OVH_AI_CALL_TOKEN"),
        ("OVHAI_BASIC_AUTH_REALM", "no user and password for one app"),
    ],
)
def test_what_the_platform_can_not_do_is_refused_by_name(
    tmp_path: Path, name: str, instead: str
) -> None:
    (fault,) = faults(tmp_path, **OLD, **{name: "s3cret-16Gi"})

    assert fault.startswith(f"{name}: ")
    assert instead in fault
    assert "s3cret" not in fault


@pytest.mark.parametrize(
    "env",
    [
        {"OLLAMA_PROXY_BACKEND": "local"},
        {"FLY_API_TOKEN": "t", "FLY_APP": "llm"},
    ],
)
def test_another_backend_leaves_these_names_to_their_programs(
    tmp_path: Path, env: dict[str, str]
) -> None:
    env = env | {"CPU_COUNT": "4", "MEMORY_SIZE": "16Gi"}

    assert loaded(tmp_path, **env).selection.backend != "ovh"


def test_an_empty_old_name_is_not_set(tmp_path: Path) -> None:
    assert loaded(tmp_path, **OLD, CPU_COUNT="").selection.backend == "ovh"


def test_a_volume_to_be_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    volume = "models@US-EAST-VA:/var/lib/ollama:rw"
    (fault,) = faults(tmp_path, **OLD | {"OLLAMA_VOLUME": volume})

    assert "does not write a volume back" in fault
    assert "models@US-EAST-VA:/var/lib/ollama:ro:cache" in fault


async def test_check_tells_the_region_that_nobody_set(rig: Rig) -> None:
    default = await typed(rig, "check")
    chosen = await typed(rig, "check", OVH_REGION="GRA")

    told = "OVH_REGION is not set, so the region is GRA (the older controller took"
    assert told in default.stdout
    assert "OVH_REGION is not set" not in chosen.stdout


async def test_a_region_that_refused_every_call_is_not_asked_for_later(
    rig: Rig,
) -> None:
    if rig.driver == "cli":
        pytest.skip("the command's log-in holds for every region")
    there = {"OVH_REGION": "US-EAST-VA", "OVH_AI_TOKEN": token_of("US-EAST-VA")}
    refused = await typed(rig, "start", **there | {"OVH_REGION": "GRA"})  # the default
    made = await typed(rig, "deploy", IMAGE, **there)
    gone = await typed(rig, "delete", "--yes", **there)

    assert (refused.returncode, made.returncode, gone.returncode) == (1, 0, 0), made
    assert "GRA" not in made.stderr + gone.stderr
    assert not [app for app in rig.cloud.apps.values() if rig.cloud.is_there(app)]
