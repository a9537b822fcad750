"""What is printed at the start: it can be typed as it stands."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ollama_proxy.cli.announcement import Calling, Serving, announcement
from ollama_proxy.cli.launch_plan import LaunchPlan
from ollama_proxy.core.ollama.suggested_model import SuggestedModel
from tests.black_box import (
    ROOT,
    Launch,
    clean_environment,
    launched_proxy,
)

PLAN = LaunchPlan("local", "it is named", "process", "this machine", (), "at no price")
URL = "http://127.0.0.1:4321"


def serving(
    model: str = "tiny", *, is_there: bool = True, default: str = "", url: str = URL
) -> Serving:
    return Serving(url, SuggestedModel(model, is_there), False, (PLAN,), (), default)


def commands(text: str) -> list[str]:
    """Return the lines that are to be typed."""
    lines = text.splitlines()
    typed = lines[lines.index("Type next, in another terminal:") + 1 :]
    return [line.strip() for line in typed if not line.strip().startswith("->")]


def test_every_command_names_the_model_and_the_address() -> None:
    told = commands(announcement(serving(default="local"), Calling("ollama-proxy")))

    assert [shlex.split(line, comments=True) for line in told] == [
        ["curl", f"{URL}/api/generate", "-d", '{"model":"tiny","prompt":"hi"}'],
        [
            *("curl", "-H", "Prefer: wait=120", f"{URL}/api/generate", "-d"),
            '{"model":"tiny","prompt":"hi"}',
        ],
        [
            *("OLLAMA_HOST=127.0.0.1:4321", "OLLAMA_PROXY_DEFAULT_BACKEND=local"),
            *("ollama-proxy", "status", "--watch"),
        ],
        ["OLLAMA_HOST=127.0.0.1:4321", "ollama", "run", "tiny"],
    ]


def test_a_hub_of_nodes_alone_tells_how_a_machine_registers_and_buys_nothing() -> None:
    nodes = LaunchPlan(
        "hub",
        "it is named",
        "the machines that register here",
        None,
        (),
        "at no price",
        registers_itself=True,
    )
    hub = replace(
        serving(is_there=False),
        plans=(nodes,),
        hub_url="http://127.0.0.1:8000",
        state_dir="/srv/state",
    )
    text = announcement(hub, Calling("ollama-proxy"))

    assert "Requests go to the machines that register at http://127.0.0.1:8000." in text
    assert "instance" not in text
    assert [shlex.split(line, comments=True) for line in commands(text)][:2] == [
        ["OLLAMA_PROXY_STATE_DIR=/srv/state", "ollama-proxy", "node-token"],
        ["curl", f"{URL}/api/generate", "-d", '{"model":"tiny","prompt":"hi"}'],
    ]


def test_a_hub_with_an_overflow_says_when_that_starts() -> None:
    hub = replace(serving(), hub_url="http://127.0.0.1:8000")
    text = announcement(hub, Calling("ollama-proxy"))

    assert "; one that finds no room there starts an instance." in text
    assert "Prefer: wait=120" in text


def test_a_model_that_is_not_known_to_be_there_is_pulled_first() -> None:
    told = commands(announcement(serving(is_there=False), Calling("ollama-proxy")))

    assert shlex.split(told[0]) == [
        *("curl", "-H", "Prefer: wait=120", f"{URL}/api/pull", "-d"),
        '{"model":"tiny"}',
    ]


def test_a_name_means_nothing_to_the_shell() -> None:
    name = "it's;$(reboot)"
    told = commands(announcement(serving(name), Calling("ollama-proxy")))

    assert json.loads(shlex.split(told[0])[-1])["model"] == name
    assert shlex.split(told[-1], comments=True)[-1] == name


def test_an_ipv6_address_is_no_pattern_of_the_shell() -> None:
    url = "http://[::1]:4321"
    text = announcement(serving(url=url, is_there=False), Calling("ollama-proxy"))

    assert sum(f"'{url}/api/" in line for line in commands(text)) == 3
    assert "  OLLAMA_HOST='[::1]:4321' ollama-proxy status" in text


def test_the_file_of_the_settings_is_named_again() -> None:
    calling = Calling("ollama-proxy", config="my file.toml")

    assert "status --watch --config 'my file.toml'\n" in announcement(
        serving(), calling
    )


def test_a_container_is_entered_for_the_status() -> None:
    calling = Calling("ollama-proxy", container="docker exec -it 4f5e6d7c8b9a ")
    told = commands(announcement(serving(), calling))

    assert "docker exec -it 4f5e6d7c8b9a ollama-proxy status --watch" in told


def first_line(command: str, env: dict[str, str]) -> str:
    """Type a command into a shell; return the first line that it prints."""
    with subprocess.Popen(
        ["bash", "-c", f"exec env {command}"],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        told = process.stdout.readline()
        process.terminate()
    return told


def script(folder: Path) -> Path:
    """Make the program as pip makes it."""
    folder.mkdir()
    made = folder / "ollama-proxy"
    made.write_text(
        f"#!{sys.executable}\nfrom ollama_proxy.__main__ import main\nmain()\n"
    )
    made.chmod(0o755)
    return made


@pytest.mark.parametrize("how", ["module", "venv", "path"])
def test_what_is_printed_works_as_it_is_typed(tmp_path: Path, how: str) -> None:
    """Started as a module, by a script that is not on the PATH, and by one that is."""
    made = script(tmp_path / "my bin")
    env = {"PATH": f"{made.parent}:{os.environ['PATH']}"} if how == "path" else {}
    launch = Launch() if how == "module" else Launch(program=(str(made),))
    with launched_proxy(tmp_path / "s", launch, env) as proxy:
        text = proxy.log.read_text()
        curl, _, status, key, _ = commands(text)
        shown = first_line(status, clean_environment(**env))
        asked = first_line(curl.replace("curl ", "curl -s "), clean_environment(**env))

    called = {
        "module": shlex.join([sys.executable, "-m", "ollama_proxy"]),
        "venv": f"'{made}'",
        "path": "ollama-proxy",
    }
    host = proxy.url.removeprefix("http://")
    assert status == f"OLLAMA_HOST={host} {called[how]} status --watch"
    folder = f"OLLAMA_PROXY_STATE_DIR={shlex.quote(str(tmp_path / 's'))}"
    assert key.startswith(f"{folder} {called[how]} key add NAME ")
    assert "  idle (cold, simulated)  0 in flight, 0 waiting\n" in shown
    assert json.loads(asked)["provisioning"] is True


def test_a_warning_stands_before_what_is_to_be_typed() -> None:
    told = Serving(
        URL, SuggestedModel("tiny", True), False, (PLAN,), warnings=("it will go",)
    )
    lines = announcement(told, Calling("ollama-proxy")).splitlines()

    typed = lines.index("Type next, in another terminal:")
    assert lines.index("Warning: it will go.") < typed


@pytest.mark.parametrize("is_there", [True, False])
def test_where_requests_need_a_key_it_is_made_first_and_sent(is_there: bool) -> None:
    told = replace(serving(is_there=is_there), needs_key=True, state_dir="/s")
    made, *others = commands(announcement(told, Calling("ollama-proxy")))

    words = shlex.split(made, comments=True)
    assert words[1:5] == ["ollama-proxy", "key", "add", "NAME"]
    assert words[5:] == ([] if is_there else ["--routes", "chat,embed,read,write"])
    curls = [shlex.split(line) for line in others if line.startswith("curl")]
    assert len(curls) == (2 if is_there else 3)
    assert all("Authorization: Bearer $KEY" in curl for curl in curls)
    assert not [line for line in others if "ollama run" in line]


def test_no_key_is_made_where_none_is_ever_needed() -> None:
    told = replace(serving(), open_to="no key is needed")
    off, first = (
        announcement(replace(told, needs_key=state), Calling("ollama-proxy"))
        for state in (None, False)
    )
    assert "key add NAME" not in off
    assert "key add NAME     # from then on requests need a key" in first
