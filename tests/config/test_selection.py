"""Which backend is used, and why; the notice on the settings of others."""

from pathlib import Path

import pytest

from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.selection import Evidence, Selection, select_backend
from ollama_proxy.config.settings import Settings
from tests.config.rig import toml

KEYS = {"EXOSCALE_API_KEY": "EXOkey", "EXOSCALE_API_SECRET": "s3cret"}
BY_DEFAULT = {"OLLAMA_PROXY_DEFAULT_BACKEND": "local"}


def selected(env: dict[str, str], file: Path | None = None) -> Selection:
    return load_settings(env, file).selection


def faults(env: dict[str, str], file: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(env, file)
    return "\n".join(caught.value.faults)


def test_a_name_decides_whatever_else_is_set() -> None:
    selection = selected({"OLLAMA_PROXY_BACKEND": " Local ", **KEYS})

    assert (selection.backend, selection.is_named) == ("local", True)
    assert selection.reason == "OLLAMA_PROXY_BACKEND names it"


def test_credentials_alone_find_a_cloud_where_there_is_no_default() -> None:
    selection = selected(KEYS)

    assert (selection.backend, selection.is_named) == ("exoscale", False)
    assert selection.reason == (
        "its credentials are in EXOSCALE_API_KEY and EXOSCALE_API_SECRET"
        " and no backend is named"
    )


@pytest.mark.parametrize(
    "credentials",
    [
        KEYS,
        {"FLY_API_TOKEN": "t", "FLY_APP": "llm"},
        {"OVH_AI_TOKEN": "t"},
        {"OVH_AI_CALL_TOKEN": "t"},
        {**KEYS, "OVH_AI_TOKEN": "t"},
    ],
)
def test_with_a_default_credentials_alone_choose_no_cloud(
    credentials: dict[str, str],
) -> None:
    selection = selected(BY_DEFAULT | credentials)

    assert selection.backend == "local"
    assert selection.reason == (
        "OLLAMA_PROXY_DEFAULT_BACKEND makes it the default and none is named"
    )
    assert all(name in selection.notice for name in credentials)
    assert "OLLAMA_PROXY_BACKEND=" in selection.notice


def test_an_upstream_url_decides_over_the_default() -> None:
    selection = selected(
        BY_DEFAULT | KEYS | {"OLLAMA_PROXY_UPSTREAM_URL": "http://h:1"}
    )

    assert selection.backend == "static"
    assert selection.reason == "OLLAMA_PROXY_UPSTREAM_URL is set"
    assert "EXOSCALE_API_KEY" in selection.notice


def test_the_settings_file_decides_over_the_default_by_name(tmp_path: Path) -> None:
    path = toml(tmp_path, 'backend = "exoscale"')
    selection = selected(BY_DEFAULT | KEYS, path)

    assert selection.backend == "exoscale"
    assert selection.reason == f"{path}: backend names it"


@pytest.mark.parametrize(
    "keys", ['api_key = "k"\napi_secret = "s"', 'zone = "ch-gva-2"']
)
def test_the_settings_file_decides_over_the_default_by_the_table_of_a_cloud(
    tmp_path: Path, keys: str
) -> None:
    path = toml(tmp_path, f"[exoscale]\n{keys}")
    selection = selected(BY_DEFAULT | KEYS, path)

    assert (selection.backend, selection.is_named) == ("exoscale", True)
    assert str(path) in selection.reason


def test_a_table_without_credentials_decides_nothing(tmp_path: Path) -> None:
    path = toml(tmp_path, '[exoscale]\nzone = "ch-gva-2"')
    selection = selected(BY_DEFAULT, path)

    assert selection.backend == "local"
    assert f"{path}: exoscale" in selection.notice


def test_the_default_can_stand_in_the_settings_file(tmp_path: Path) -> None:
    path = toml(tmp_path, 'default_backend = "local"')

    assert selected(KEYS, path).backend == "local"


def test_nothing_at_all_is_this_machine() -> None:
    assert selected({}) == Selection(
        "local",
        "no backend is named and there are no credentials of a cloud",
        is_named=False,
    )


def test_two_clouds_without_a_name_are_for_a_person_to_choose() -> None:
    both = faults({**KEYS, "FLY_API_TOKEN": "t", "FLY_APP": "llm"})

    assert "there are settings for exoscale and fly; name the one" in both


def test_a_url_and_credentials_without_a_default_are_for_a_person_to_choose() -> None:
    both = faults({**KEYS, "OLLAMA_PROXY_UPSTREAM_URL": "http://h:1"})

    assert "there are settings for static and exoscale" in both


def test_evidence_of_two_tables_makes_rivals() -> None:
    evidence = Evidence(
        default="local",
        credentials={"fly": "a", "ovh": "b"},
        tables={"ovh": "t", "fly": "t"},
    )

    assert select_backend(evidence).meant == ("fly", "ovh")


def test_settings_that_nobody_loaded_select_what_they_name() -> None:
    settings = Settings.model_validate({"backend": "static"})
    assert settings.selection.backend == "static"


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ({"EXOSCALE_API_KEY": "k"}, "EXOSCALE_API_SECRET"),
        ({"EXOSCALE_API_SECRET": "s"}, "EXOSCALE_API_KEY"),
        ({"OVH_AI_USERNAME": "u"}, "OVH_AI_PASSWORD"),
        ({"OVH_AI_PASSWORD": "p"}, "OVH_AI_USERNAME"),
    ],
)
def test_half_a_pair_is_refused_where_no_backend_is_named(
    given: dict[str, str], lacking: str
) -> None:
    told = faults(given)

    assert told == (
        f"{lacking}: is not set, and {next(iter(given))} is; one needs the other:"
        " set both, or neither"
    )


def test_half_a_pair_of_the_backend_that_is_meant_is_told_once() -> None:
    env = {"OLLAMA_PROXY_BACKEND": "exoscale", "EXOSCALE_API_KEY": "k"}

    assert len(faults(env).splitlines()) == 1


def test_a_pair_of_which_the_file_has_one_half_is_whole(tmp_path: Path) -> None:
    path = toml(tmp_path, '[exoscale]\napi_key = "k"')
    selection = selected({"EXOSCALE_API_SECRET": "s"}, path)

    assert selection.backend == "exoscale"


@pytest.mark.parametrize("named", [BY_DEFAULT, {"OLLAMA_PROXY_BACKEND": "local"}])
def test_settings_of_other_backends_stop_nothing_and_give_one_notice(
    named: dict[str, str],
) -> None:
    others = {
        "EXOSCALE_API_KEY": "half a pair",
        "EXOSCALE_DISK_SIZE": "a lot",
        "EXOSCALE_ZNOE": "misspelt",
        "EXOSCALE_IDLE_TIMEOT": "misspelt too",
        "FLY_VM_SIZE": "a100-40gb",
        "OVH_REGION": "no region",
    }
    settings = load_settings(named | others)
    notice = settings.selection.notice

    assert settings.of(ExoscaleSettings).disk_size == 100
    assert "\n" not in notice
    assert "EXOSCALE_ZNOE (EXOSCALE_ZONE?)" in notice
    assert all(name in notice for name in others)
    assert not any(value in notice for value in others.values())
    for cloud in ("exoscale", "fly", "ovh"):
        assert f"OLLAMA_PROXY_BACKEND={cloud}" in notice


def test_a_table_of_another_backend_is_not_validated(tmp_path: Path) -> None:
    path = toml(tmp_path, 'backend = "local"\n[exoscale]\nnonsense = 1\n[fly]\nsize=2')

    assert "exoscale" in selected({}, path).notice


def test_values_of_the_backend_that_is_meant_are_validated() -> None:
    assert "EXOSCALE_DISK_SIZE" in faults(KEYS | {"EXOSCALE_DISK_SIZE": "a lot"})


@pytest.mark.parametrize(
    "named",
    [{}, {"OLLAMA_PROXY_BACKEND": "exoscale"}, KEYS],
    ids=["none is named", "it is named", "it is found"],
)
def test_a_misspelt_setting_is_refused_with_the_right_one(
    named: dict[str, str],
) -> None:
    told = faults(named | KEYS | {"EXOSCALE_ZNOE": "ch-gva-2"})

    assert told == "EXOSCALE_ZNOE: unknown setting; did you mean EXOSCALE_ZONE?"


def test_a_misspelt_setting_of_any_backend_is_refused_where_none_is_named() -> None:
    assert "did you mean FLY_VM_SIZE?" in faults(KEYS | {"FLY_VM_SZIE": "x"})


def test_a_misspelt_setting_of_the_proxy_is_refused_whatever_is_named() -> None:
    told = faults({"OLLAMA_PROXY_BACKEND": "local", "OLLAMA_MODLE": "llama3.2"})

    assert told == "OLLAMA_MODLE: unknown setting; did you mean OLLAMA_MODEL?"


def test_a_misspelt_setting_that_is_empty_is_none() -> None:
    assert not selected(BY_DEFAULT | {"EXOSCALE_ZNOE": ""}).notice
