"""What is taken for a misspelt setting, and what is not."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.base.fields import environment_names
from ollama_proxy.config.known_settings import every_setting
from ollama_proxy.config.misspellings import misspelt_names

KNOWN = {
    "": ["OLLAMA_HOST", "OLLAMA_MODEL", "OLLAMA_PROXY_BACKEND", "LOG_LEVEL"],
    "exoscale": ["EXOSCALE_ZONE", "EXOSCALE_API_KEY"],
    "fly": ["FLY_APP", "FLY_IMAGE", "FLY_VM_MEMORY"],
    "ovh": ["OVH_REGION", "GPU_COUNT"],
}


def meant(name: str) -> str | None:
    found = list(misspelt_names([name], KNOWN))
    return found[0].meant if found else None


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("EXOSCALE_ZNOE", "EXOSCALE_ZONE"),
        ("EXOSCALE_ZON", "EXOSCALE_ZONE"),
        ("EXOSCALE_ZONES", "EXOSCALE_ZONE"),
        ("EXOSCALEZONE", "EXOSCALE_ZONE"),
        ("EXOSACLE_ZONE", "EXOSCALE_ZONE"),
        ("EXOSACLE_ZNOE", "EXOSCALE_ZONE"),
        ("EXOSCALE_APIKEY", "EXOSCALE_API_KEY"),
        ("OLLAMA_MODLE", "OLLAMA_MODEL"),
        ("OLAMA_PROXY_BAKEND", "OLLAMA_PROXY_BACKEND"),
        ("FYL_APP", "FLY_APP"),
        ("FLYAPP", "FLY_APP"),
        ("FLY_APPS", "FLY_APP"),
        ("OVH_REGOIN", "OVH_REGION"),
        ("GPU_COUNTS", "GPU_COUNT"),
    ],
)
def test_two_letters_from_a_setting_is_misspelt(name: str, right: str) -> None:
    assert meant(name) == right


@pytest.mark.parametrize(
    "name",
    [
        "EXOSCALE_ZONE",
        "EXOSCALE_ZONING",
        "OLLAMA_MODELS",
        "OLLAMA_PORT",
        "FLY_VM_MEMORY_MB",
        "FLY_IMAGE_REF",
        "MY_APP",
        "MY_IMAGE",
        "CPU_COUNT",
        "LOGLEVEL",
        "exoscale_zone",
        "TF_VAR_exoscale_zone",
        "",
    ],
)
def test_settings_names_of_others_and_far_ones_are_not_misspelt(name: str) -> None:
    assert meant(name) is None


def test_the_nearest_setting_is_meant_and_its_group_told() -> None:
    known = {"a": ["EXOSCALE_LEASES"], "b": ["EXOSCALE_LEASE"]}

    assert list(misspelt_names(["EXOSCALE_LEASE_"], known)) == [
        ("EXOSCALE_LEASE_", "EXOSCALE_LEASE", "b")
    ]


@given(
    st.sampled_from(["EXOSCALE_INSTANCE_TYPE", "OLLAMA_PROXY_HOLD"]),
    st.integers(0, 30),
    st.sampled_from(string.ascii_uppercase),
    st.sampled_from(["left out", "added", "changed", "swapped"]),
)
def test_any_one_slip_is_found(name: str, place: int, letter: str, slip: str) -> None:
    at = place % (len(name) - 1)
    slips = {
        "left out": name[:at] + name[at + 1 :],
        "added": name[:at] + letter + name[at:],
        "changed": name[:at] + letter + name[at + 1 :],
        "swapped": name[:at] + name[at + 1] + name[at] + name[at + 2 :],
    }
    found = [one.meant for one in misspelt_names([slips[slip]], {"": [name]})]

    assert found == ([] if slips[slip] == name else [name])


def test_no_setting_is_taken_for_another_one_misspelt() -> None:
    every = [
        name for one in every_setting().values() for name in environment_names(one)
    ]

    assert list(misspelt_names(every, {"": every})) == []
