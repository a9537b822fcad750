"""Models compared with what an instance has, before one is paid for."""

import asyncio
from pathlib import Path

import pytest

from ollama_proxy.cli.doctor import examine
from ollama_proxy.config.loader import load_settings
from ollama_proxy.fleet.backend import Finding, Traits
from ollama_proxy.fleet.model_room import room_findings

A5000 = Traits(models_gib=30, gpus=1, gpu_memory_gb=24)


def findings(
    *models: str, traits: Traits = A5000, sizes: dict[str, int] | None = None
) -> dict[str, Finding]:
    found = room_findings(models, traits, sizes or {})
    return {one.subject: one for one in found}


def test_a_large_model_meets_a_small_disk_and_a_small_gpu() -> None:
    found = findings("llama3.3:70b")

    disk, gpu = found["disk and models"], found["GPU memory and model"]
    assert (disk.ok, disk.warns) == (True, True)
    assert "about 38.5 GiB, room for 30; estimated from the name" in disk.detail
    assert (gpu.ok, gpu.warns) == (True, True)
    assert "wants about 46.0 GB, the GPU memory is 24 GB; about 48%" in gpu.detail


def test_a_small_model_fits() -> None:
    found = findings("llama3.1:8b")

    assert all(one.ok and not one.warns for one in found.values())


def test_what_is_known_not_to_fit_is_wrong_and_no_guess() -> None:
    found = findings("big", sizes={"big:latest": 40 << 30})

    assert not found["disk and models"].ok
    assert "about" not in found["disk and models"].detail
    assert found["GPU memory and model"].warns


def test_the_models_of_a_disk_add_up() -> None:
    sizes = {"big:latest": 20 << 30}

    assert not findings("big", sizes=sizes)["disk and models"].warns
    assert findings("big", "qwen2.5:32b", sizes=sizes)["disk and models"].warns


def test_a_model_whose_name_says_nothing_is_not_judged() -> None:
    found = findings("mystery")

    assert found.keys() == {"disk and models"}
    assert "not known before an instance has had them: mystery:latest" in (
        found["disk and models"].detail
    )


@pytest.mark.parametrize("gpu_memory_gb", [None, 0])
def test_where_no_gpu_is_known_none_is_missed(gpu_memory_gb: int | None) -> None:
    traits = Traits(gpu_memory_gb=gpu_memory_gb)

    assert findings("llama3.3:70b", traits=traits) == {}


CLOUDS = {
    "exoscale": {
        "EXOSCALE_API_KEY": "EXOkey",
        "EXOSCALE_API_SECRET": "secret",
        "EXOSCALE_API_ENDPOINT": "http://127.0.0.1:9",
        "EXOSCALE_DISK_SIZE": "50",
    },
    "ovh": {
        "OVH_AI_TOKEN": "token",
        "OVH_AI_API_URL": "http://127.0.0.1:9",
        "GPU_MODEL": "L4",
    },
}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_check_warns_of_a_large_model_on_every_cloud_with_gpus(
    cloud: str, tmp_path: Path
) -> None:
    """Even where the cloud can't be asked."""
    settings = load_settings(
        {
            "OLLAMA_PROXY_BACKEND": cloud,
            "OLLAMA_PROXY_STATE_DIR": str(tmp_path),
            "OLLAMA_MODEL": "llama3.3:70b",
            "OLLAMA_HOST": "127.0.0.1:0",
            **CLOUDS[cloud],
        }
    )
    found = {one.subject: one for one in asyncio.run(examine(settings))}

    assert found["GPU memory and model"].warns
    if cloud == "exoscale":
        assert found["disk and models"].warns
