"""Variables of other programs pass, whatever backend is meant."""

import pytest

from ollama_proxy.base.fields import environment_names
from ollama_proxy.config.foreign_variables import NAMES, is_foreign
from ollama_proxy.config.known_settings import every_setting
from ollama_proxy.config.loader import load_settings

OURS = {name for one in every_setting().values() for name in environment_names(one)}


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"OLLAMA_PROXY_BACKEND": "local"},
        {
            "OLLAMA_PROXY_BACKEND": "exoscale",
            "EXOSCALE_API_KEY": "k",
            "EXOSCALE_API_SECRET": "s",
        },
        {"OLLAMA_PROXY_BACKEND": "fly", "FLY_API_TOKEN": "t", "FLY_APP": "llm"},
        {
            "OLLAMA_PROXY_BACKEND": "ovh",
            "OVH_AI_TOKEN": "t",
            "OVH_DRIVER": "rest",
        },
    ],
    ids=["none", "local", "exoscale", "fly", "ovh"],
)
def test_every_name_passes_and_is_not_even_mentioned(named: dict[str, str]) -> None:
    foreign = dict.fromkeys(sorted(NAMES - OURS), "anything")
    settings = load_settings(named | foreign)

    assert settings.selection.notice == ""


@pytest.mark.parametrize(
    "name",
    [
        "OLLAMA_MODELS",
        "OLLAMA_KEEP_ALIVE",
        "OLLAMA_SIMULATOR_RATE",
        "FLY_VM_MEMORY_MB",
        "FLY_MACHINE_ID",
        "FLY_ACCESS_TOKEN",
        "EXOSCALE_CONFIG",
        "EXOSCALE_TIMEOUT",
        "OVH_ENDPOINT",
        "OVH_CONSUMER_KEY",
        "OVH_HTTP_HEADERS_0",
        "TF_VAR_ovh_region",
    ],
)
def test_each_program_has_its_names(name: str) -> None:
    assert is_foreign(name)


def test_a_misspelt_setting_is_nobody_elses() -> None:
    assert not is_foreign("EXOSCALE_ZNOE")
