"""A renamed setting is read by its former name, with a warning."""

from pathlib import Path

import pytest

from ollama_proxy.cli.doctor import examine
from ollama_proxy.config.loader import load_settings
from tests.config.rig import faults, toml

NOW, WAS = "OLLAMA_PROXY_RESTORE_MODELS", "OLLAMA_PROXY_STICKY_MODELS"
TOLD = f"{WAS} is called {NOW} by now; the former name goes on working"


@pytest.mark.parametrize(
    ("env", "renamed"),
    [
        ({NOW: "false"}, ()),
        ({WAS: "false"}, (TOLD,)),
        ({WAS: " 'false' "}, (TOLD,)),
        ({WAS: "false", NOW: ""}, (TOLD,)),
        ({WAS: "", NOW: "false"}, ()),
        ({WAS: "0", NOW: "False"}, (TOLD,)),
    ],
)
def test_either_variable_is_read(env: dict[str, str], renamed: tuple[str, ...]) -> None:
    settings = load_settings(env)

    assert not settings.restore_models
    assert settings.renamed == renamed


@pytest.mark.parametrize("key", ["restore_models", "sticky_models"])
def test_either_key_of_the_file_is_read(tmp_path: Path, key: str) -> None:
    settings = load_settings({}, toml(tmp_path, f"{key} = false"))

    assert not settings.restore_models
    assert len(settings.renamed) == (key == "sticky_models")


@pytest.mark.parametrize("variable", [NOW, WAS])
@pytest.mark.parametrize("key", ["restore_models", "sticky_models"])
def test_the_environment_wins_by_either_name(
    tmp_path: Path, variable: str, key: str
) -> None:
    path = toml(tmp_path, f"{key} = true")

    assert not load_settings({variable: "false"}, path).restore_models


def test_two_values_by_two_names_are_a_fault(tmp_path: Path) -> None:
    ends = "these are one setting by its present and its former name, and their values"
    (in_env,) = faults({NOW: "true", WAS: "false"})
    both = toml(tmp_path, "restore_models = true\nsticky_models = false")
    (in_file,) = faults({}, both)

    assert in_env == f"{NOW}, {WAS}: {ends} differ; remove the second"
    assert in_file == f"restore_models, sticky_models: {ends} differ; remove the second"


def test_the_same_value_by_two_names_is_none(tmp_path: Path) -> None:
    both = toml(tmp_path, "restore_models = false\nsticky_models = false")

    assert not load_settings({NOW: "no", WAS: "false"}, both).restore_models


def test_a_wrong_value_is_told_by_the_name_that_was_written(tmp_path: Path) -> None:
    (fault,) = faults({WAS: "perhaps"})
    (other,) = faults({}, toml(tmp_path, 'sticky_models = "perhaps"'))

    assert fault.startswith(f"{WAS}: Input should be a valid boolean")
    assert other.startswith(f"{tmp_path / 'p.toml'}: sticky_models: Input should be")


async def test_check_tells_it(tmp_path: Path) -> None:
    env = {"OLLAMA_HOST": "127.0.0.1:0", "OLLAMA_PROXY_STATE_DIR": str(tmp_path)}
    found = await examine(load_settings({WAS: "true", **env}))

    (told,) = [one for one in found if one.subject == "a former name"]
    assert (told.ok, told.warns, told.detail) == (True, True, TOLD)
