"""What a launch would start, where, at what price: printed before a purchase."""

from pathlib import Path

import pytest

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.cli.launch_plan import LaunchPlan, launch_plan
from ollama_proxy.composition import open_backend
from ollama_proxy.config.loader import load_settings
from ollama_proxy.store.sqlite.store import SqliteStore

EXOSCALE = {"EXOSCALE_API_KEY": "EXOkey", "EXOSCALE_API_SECRET": "my-secret"}
FLY = {"FLY_API_TOKEN": "my-secret", "FLY_APP": "llm"}
OVH = {"OVH_AI_TOKEN": "my-secret", "OVH_DRIVER": "rest"}


def plan_of(folder: Path, **env: str) -> LaunchPlan:
    settings = load_settings({"OLLAMA_PROXY_STATE_DIR": str(folder), **env})
    store = SqliteStore(settings.state_dir)
    try:
        return launch_plan(settings, open_backend(settings, store, SystemClock()))
    finally:
        store.close()


@pytest.mark.parametrize(
    ("env", "told"),
    [
        (
            EXOSCALE,
            "exoscale: a5000.small (at-vie-2), price unknown"
            " (EXOSCALE_PRICE_PER_HOUR is not set); chosen because its credentials are"
            " in EXOSCALE_API_KEY and EXOSCALE_API_SECRET and no backend is named",
        ),
        (
            EXOSCALE
            | {
                "OLLAMA_PROXY_BACKEND": "exoscale",
                "EXOSCALE_PRICE_PER_HOUR": "1.25",
                "EXOSCALE_FALLBACK_TYPES": "a40.small",
                "EXOSCALE_FALLBACK_ZONES": "ch-gva-2",
            },
            "exoscale: a5000.small (at-vie-2), without room there a40.small or"
            " ch-gva-2, 1.25 per hour as configured; chosen because"
            " OLLAMA_PROXY_BACKEND names it",
        ),
        (
            FLY | {"FLY_FALLBACK_REGIONS": "iad"},
            "fly: shared-cpu-1x (fra), without room there iad, price unknown"
            " (FLY_PRICE_PER_HOUR is not set); chosen because its credentials are in"
            " FLY_API_TOKEN and no backend is named",
        ),
        (
            OVH | {"OVH_PRICE_PER_HOUR": "0.75", "GPU_MODEL": "H100"},
            "ovh: H100 (GRA), 0.75 per hour as configured; chosen because its"
            " credentials are in OVH_AI_TOKEN and no backend is named; OVH_REGION is"
            " not set, so the region is GRA (the older controller took US-EAST-VA)",
        ),
        (
            OVH | {"OVH_REGION": "GRA", "GPU_MODEL": "H100"},
            "ovh: H100 (GRA), price unknown (OVH_PRICE_PER_HOUR is not set); chosen"
            " because its credentials are in OVH_AI_TOKEN and no backend is named",
        ),
        (
            {"OLLAMA_PROXY_UPSTREAM_URL": "http://gpu.example:11434"},
            "static: a server that is there anyway (http://gpu.example:11434), at no"
            " price; chosen because OLLAMA_PROXY_UPSTREAM_URL is set",
        ),
        (
            {"OLLAMA_PROXY_SIMULATOR": "always"},
            "local: simulator (this machine), at no price; chosen because no backend"
            " is named and there are no credentials of a cloud",
        ),
    ],
)
async def test_the_plan_is_told_without_asking_a_cloud(
    tmp_path: Path, env: dict[str, str], told: str
) -> None:
    plan = plan_of(tmp_path, **env)

    assert plan.sentence == told
    assert "my-secret" not in repr(plan)


def test_a_hub_tells_that_its_machines_register_themselves(tmp_path: Path) -> None:
    told = plan_of(tmp_path, OLLAMA_PROXY_HUB="true")

    assert told.sentence == (
        "hub: the machines that register here, at no price; chosen because"
        " OLLAMA_PROXY_HUB names it"
    )
