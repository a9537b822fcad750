"""What Dockerfile and compose file say; `make image-test` builds and runs them."""

import json
import shlex
import tomllib
from pathlib import Path

import yaml

from ollama_proxy.base.fields import environment_names
from ollama_proxy.config.known_settings import every_setting

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def value(name: str) -> str:
    return [text for found, text in instructions() if found == name][-1]


def test_the_image_runs_as_nobody_special_with_its_state_on_a_volume() -> None:
    assert value("USER").isdecimal()
    assert int(value("USER")) != 0
    assert value("VOLUME") == "/state"
    assert value("EXPOSE") == "11434"


def test_the_health_check_is_the_command_and_knows_no_port() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    check = value("HEALTHCHECK")
    service = compose["services"]["ollama-proxy"]["healthcheck"]

    assert json.loads(check.partition("CMD")[2]) == ["ollama-proxy", "healthcheck"]
    assert service["test"] == ["CMD", "ollama-proxy", "healthcheck"]
    for name in ("interval", "timeout", "start_period", "retries"):
        assert f"--{name.replace('_', '-')}={service[name]}" in check


def test_everything_that_is_copied_passes_the_ignore_file() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for name, text in instructions():
        if name == "COPY" and not text.startswith("--from"):
            for file in shlex.split(text)[:-1]:
                assert file.split("/")[0] in allowed


def test_the_licence_is_there_when_the_wheel_of_the_image_is_built() -> None:
    """The wheel carries it into site-packages; without the file its build fails."""
    copied = [
        file
        for name, text in instructions()
        if name == "COPY" and not text.startswith("--from")
        for file in shlex.split(text)[:-1]
    ]

    assert {"pyproject.toml", "README.md", "LICENSE"} <= set(copied)


def test_the_compose_file_sets_what_is_known() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    service = compose["services"]["ollama-proxy"]
    known = {
        name for field in every_setting().values() for name in environment_names(field)
    }

    assert set(service["environment"]) <= known
    assert service["volumes"] == ["state:/state"]
    assert "state" in compose["volumes"]


def test_it_is_built_by_a_task_of_its_own_which_ci_runs() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]

    assert "tests/image" in options["ini_options"]["norecursedirs"]
    assert "\nimage-test: " in (ROOT / "Makefile").read_text()
    assert " image-test\n" in (ROOT / ".ci/run").read_text()
