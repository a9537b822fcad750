"""What the Dockerfile and the compose file say, done without a container engine."""

import json
import os
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from ollama_proxy.setting import environment_names
from ollama_proxy.settings import every_setting
from tests.black_box import clean_environment, free_port

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def value(name: str) -> str:
    return [text for found, text in instructions() if found == name][-1]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Carry out the build stage, with /src and /opt below a folder of ours."""
    root = tmp_path_factory.mktemp("image")
    source = root / "src"
    source.mkdir()
    stages = 0
    for name, text in instructions():
        stages += name == "FROM"
        if stages > 1:
            break
        if name == "COPY":
            *files, target = text.split()
            for file in files:
                place = source / (target if target.endswith("/") else "")
                place.mkdir(exist_ok=True)
                subprocess.run(["cp", "-a", str(ROOT / file), str(place)], check=True)
            if target not in {"./", "requirements/"}:
                assert (source / target).exists()
        if name == "RUN":
            command = text.replace("/opt/", f"{root}/opt/")
            (root / "opt").mkdir(exist_ok=True)
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=source,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    return root / "opt" / "venv"


def test_the_commands_of_the_image_install_and_serve(
    image: Path, tmp_path: Path
) -> None:
    port = free_port()
    settings = {
        match[1]: match[2]
        for match in re.finditer(r"(\w+)=(\S+)", value("ENV"))
        if match[1] != "PATH"
    }
    assert settings["OLLAMA_HOST"] == "0.0.0.0:11434"
    assert settings["OLLAMA_PROXY_STATE_DIR"] == "/state"
    environment = clean_environment(
        **settings
        | {
            "OLLAMA_HOST": f"127.0.0.1:{port}",
            "OLLAMA_PROXY_STATE_DIR": str(tmp_path / "state"),
            "PATH": f"{image}/bin:{os.environ['PATH']}",
            "PYTHONPATH": "",
        }
    )
    command = json.loads(value("ENTRYPOINT")) + json.loads(value("CMD"))
    check = json.loads(value("HEALTHCHECK").partition("CMD")[2])
    served = subprocess.Popen(
        [f"{image}/bin/{command[0]}", *command[1:]],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.perf_counter() + 20
        while subprocess.run(
            [f"{image}/bin/{check[0]}", *check[1:]],
            env=environment,
            capture_output=True,
            check=False,
        ).returncode:
            assert time.perf_counter() < deadline, "the health check never passed"
            time.sleep(0.1)
    finally:
        served.terminate()

    assert served.wait(20) == 0


def test_no_build_tools_are_left_in_the_image(image: Path) -> None:
    site = next(image.glob("lib/python*/site-packages"))
    left = {path.name.partition("-")[0] for path in site.glob("*.dist-info")}

    assert not left & {"pip", "hatchling", "editables", "setuptools", "wheel"}
    assert not (image / "bin" / "pip").exists()


def test_the_image_runs_as_nobody_special_with_its_state_on_a_volume() -> None:
    assert value("USER").isdecimal()
    assert int(value("USER")) != 0
    assert value("VOLUME") == "/state"
    assert value("EXPOSE") == "11434"


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


def test_the_compose_file_sets_what_is_known() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    service = compose["services"]["ollama-proxy"]
    known = {
        name for field in every_setting().values() for name in environment_names(field)
    }

    assert set(service["environment"]) <= known
    assert service["volumes"] == ["state:/state"]
    assert "state" in compose["volumes"]
