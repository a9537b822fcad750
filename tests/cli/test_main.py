"""The commands, as a user types them."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_group
from typer.testing import CliRunner

from ollama_proxy import __version__
from ollama_proxy.cli.main import app
from tests.black_box import (
    PROGRAM,
    ROOT,
    Launch,
    clean_environment,
    forked_proxy,
    launched_proxy,
    run_cli,
)
from tests.ports import address_of_nobody
from tests.terminal import Terminal

COMMANDS = sorted(
    [
        *(
            str(one.name or one.callback.__name__.replace("_", "-"))
            for one in app.registered_commands
            if one.callback
        ),
        *(str(one.name) for one in app.registered_groups),
    ]
)


@contextlib.contextmanager
def raw_server(answer: bytes) -> Iterator[int]:
    """Answer one request with these bytes; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(5)


def test_version() -> None:
    done = run_cli("--version")

    assert (done.returncode, done.stdout) == (0, f"ollama-proxy {__version__}\n")


def test_help_names_every_command() -> None:
    done = run_cli("--help")

    for command in (
        "serve",
        "status",
        "wake",
        "stop",
        "abandon",
        "sweep",
        "pulls",
        "plan",
        "usage",
        "check",
        "start",
        "deploy",
    ):
        assert command in done.stdout


def test_help_tells_of_each_command_in_the_order_of_their_use() -> None:
    done = run_cli("--help", COLUMNS="100")
    told = [line.strip("│ ") for line in done.stdout.split("Commands")[1].splitlines()]

    assert [re.sub(" {2,}", ": ", line) for line in told if ".  " not in line][
        1:16
    ] == [
        "serve: Serve until a signal ends it.",
        "status: Show what the running proxy is doing.",
        "wake: Launch an instance now, whatever failed before.",
        "start: Do the same as `wake`; without a proxy, start what ends by itself"
        " later.",
        "stop: Stop the instance once its streams have ended; without a proxy, at"
        " once.",
        "abandon: Wait no longer for the cloud's word on a LAUNCH; it may still cost"
        " money.",
        "pulls: List the pulls that run without their client, or end one.",
        "plan: Show how many instances each pool wants now, and what it would start"
        " or stop.",
        "journal: List the last changes of state and the last orders, newest first.",
        "usage: Show what keys used: requests, tokens, seconds, refusals.",
        "deploy: Make, once, what launches only start: the app that runs IMAGE.",
        "delete: Delete everything of this deployment in its cloud.",
        "sweep: Stop instances of ours that no record names, or whose lease has"
        " expired.",
        "check: Examine settings, credentials and programs; create nothing.",
        "healthcheck: Ask the proxy that listens on this machine whether it serves.",
    ]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_h_is_help(command: str) -> None:
    words = [command] if command else []
    done = CliRunner().invoke(app, [*words, "-h"])

    assert done.exit_code == 0
    assert "Usage:" in done.output
    assert "-h" in done.output


def test_every_option_and_argument_says_what_it_is_for() -> None:
    program = get_group(app)
    commands = dict(program.commands)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        of_group = get_group(group.typer_instance).commands
        commands |= {f"{group.name} {name}": one for name, one in of_group.items()}
    silent = [
        f"{name} {parameter.name}"
        for name, command in commands.items()
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]

    assert sorted(program.commands) == COMMANDS
    assert silent == []


def documented() -> set[str]:
    """Return what the pages and examples have after the program's name."""
    pages = [ROOT / "README.md", ROOT / "compose.yaml", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    words = "|".join(COMMANDS)
    return set(re.findall(rf"ollama-proxy ((?:{words})(?: --[a-z-]+)*)", text))


@pytest.mark.parametrize("words", sorted(documented()))
def test_every_documented_command_is_one(words: str) -> None:
    name, *options = words.split()
    done = CliRunner().invoke(app, [name, "-h"], env={"COLUMNS": "200"})

    assert done.exit_code == 0
    for option in options:
        assert option in done.output


def test_options_of_serve_win_over_the_environment(tmp_path: Path) -> None:
    launch = Launch(options=("--host", "localhost", "--port", "0"))
    env = {"OLLAMA_HOST": "192.0.2.77:1"}
    with launched_proxy(tmp_path / "s", launch, env) as proxy:
        port = proxy.url.rpartition(":")[2]
        assert port != "1"
        assert proxy.get("/healthz") == {"status": "ok"}
        assert f"listens on http://localhost:{port}." in proxy.log.read_text()


def test_faults_of_options_are_named_all_at_once() -> None:
    done = run_cli("serve", "--host", "0", "--port", "70000")

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "ollama-proxy: --host: '0' has no valid host; write host:port, and a port alone"
        " as :11434",
        "ollama-proxy: --port: '70000' is not a port; write one from 0 to 65535",
    ]


def test_the_status_is_to_be_had_as_json(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        done = run_cli("status", "--json", OLLAMA_HOST=proxy.url)
        expected = proxy.get("/status")

    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout) == expected


def test_without_a_proxy_json_is_still_json() -> None:
    done = run_cli("status", "--json", OLLAMA_HOST=address_of_nobody())
    told = json.loads(done.stdout)

    assert done.returncode == 1
    assert told["error"].startswith("no ollama-proxy answers at http://127.0.0.1:")
    assert done.stderr == f"ollama-proxy: {told['error']}\n"


def test_another_server_is_not_taken_for_a_proxy() -> None:
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as port:
        done = run_cli("status", OLLAMA_HOST=f"127.0.0.1:{port}")

    assert done.returncode == 1
    assert "is not an ollama-proxy" in done.stderr
    assert "Traceback" not in done.stderr


def begin_watching(url: str, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*PROGRAM, "status", "--watch", *options],
        cwd=ROOT,
        env=clean_environment(OLLAMA_HOST=url, FORCE_COLOR="1"),  # as CI sets it
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_watching_into_a_pipe_tells_each_change_once(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        watching = begin_watching(proxy.url)
        assert watching.stdout is not None
        lines = [watching.stdout.readline()]
        run_cli("wake", OLLAMA_HOST=proxy.url)
        while "ready (ready, simulated)" not in lines[-1]:
            lines.append(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        rest, fault = watching.communicate(timeout=10)

    assert (watching.returncode, rest, fault) == (0, "", "")
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  idle \(cold, simulated\)  0 in flight, 0 waiting\n", lines[0]
    )
    assert any("provisioning (starting, simulated)  " in line for line in lines)
    assert len({line.partition("  ")[2] for line in lines}) == len(lines)
    assert "\x1b" not in "".join(lines)


def test_watching_as_json_prints_a_status_per_change(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        watching = begin_watching(proxy.url, "--json")
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        assert watching.communicate(timeout=10) == ("", "")

    assert first["provisioning_status"] == "idle"


def test_watching_ends_with_its_reader_although_nothing_changes(
    tmp_path: Path,
) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        watching = begin_watching(proxy.url)
        assert watching.stdout is not None
        assert watching.stderr is not None
        watching.stdout.readline()
        watching.stdout.close()
        assert watching.wait(timeout=10) == 0
        assert watching.stderr.read() == ""
        watching.stderr.close()


@pytest.mark.parametrize(
    ("env", "has_colours"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_the_log_at_a_terminal_has_colours_if_they_are_wanted(
    tmp_path: Path, env: dict[str, str], has_colours: bool
) -> None:
    terminal = Terminal(tmp_path / "terminal.log")
    with launched_proxy(tmp_path / "s", Launch(terminal=terminal), env) as proxy:
        proxy.terminate()
    terminal.hang_up()
    text = (tmp_path / "terminal.log").read_text()

    assert "proxy.started" in text
    assert ("\x1b[" in text) is has_colours


def test_wake_status_and_stop_talk_to_the_running_proxy(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        host = {"OLLAMA_HOST": proxy.url, "OLLAMA_PROXY_STATE_DIR": str(tmp_path / "s")}
        assert "idle (cold, simulated)" in run_cli("status", **host).stdout
        assert "provisioning (starting" in run_cli("wake", **host).stdout
        proxy.until(lambda: proxy.get("/status")["provisioning_status"] == "ready")
        assert "ready (ready, simulated)" in run_cli("status", **host).stdout
        assert "stopping" in run_cli("stop", **host).stdout
        proxy.until(lambda: proxy.get("/status")["instance_status"] == "cold")


def test_pulls_are_listed_and_ended_by_a_command(tmp_path: Path) -> None:
    with forked_proxy(
        tmp_path / "s", OLLAMA_SIMULATOR_PULL="60", OLLAMA_SIMULATOR_MODELS="llama3.2"
    ) as proxy:
        host = {"OLLAMA_HOST": proxy.url, "OLLAMA_PROXY_STATE_DIR": str(tmp_path / "s")}
        assert run_cli("pulls", **host).stdout == "no pull goes on\n"
        run_cli("wake", **host)
        proxy.until(lambda: proxy.get("/status")["provisioning_status"] == "ready")
        body = json.dumps({"model": "hf.co/a/b:Q4"}).encode()
        with urllib.request.urlopen(proxy.url + "/api/pull", body, timeout=10):
            proxy.until(lambda: bool(proxy.get("/status")["pulls"]))
        listed = run_cli("pulls", **host)
        ended = run_cli("pulls", "--end", "hf.co/a/b:Q4", **host)
        again = run_cli("pulls", "--end", "hf.co/a/b:Q4", **host)

    assert listed.stdout.startswith("hf.co/a/b:Q4  pulling ")
    assert ended.stdout.startswith("ended hf.co/a/b:Q4")
    assert again.returncode == 1
    assert "no pull of 'hf.co/a/b:Q4' is under way" in again.stderr


def test_without_a_proxy_a_command_says_so() -> None:
    done = run_cli("status", OLLAMA_HOST=address_of_nobody())

    assert done.returncode == 1
    assert "no ollama-proxy answers at http://127.0.0.1:" in done.stderr
    assert "([Errno 111] Connection refused); start it" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_backend_without_anything_to_deploy_says_so(tmp_path: Path) -> None:
    done = run_cli("deploy", "x:1", OLLAMA_PROXY_STATE_DIR=str(tmp_path))

    assert done.returncode == 2
    assert "the backend 'local' has nothing to be deployed" in done.stderr


def test_sweep_finds_nothing_where_nothing_is_lost(tmp_path: Path) -> None:
    env = {
        "OLLAMA_PROXY_STATE_DIR": str(tmp_path),
        "OLLAMA_HOST": address_of_nobody(),
    }
    alone = run_cli("sweep", "--dry-run", **env)
    with forked_proxy(tmp_path / "s"):
        asked = run_cli("sweep", OLLAMA_PROXY_STATE_DIR=str(tmp_path / "s"))

    assert (alone.returncode, asked.returncode) == (0, 0)
    assert alone.stdout == asked.stdout == ("nothing of ours runs that should not\n")


def test_check_examines_without_creating(tmp_path: Path) -> None:
    env = {
        "OLLAMA_PROXY_STATE_DIR": str(tmp_path),
        "OLLAMA_HOST": address_of_nobody(),
        "OLLAMA_PROXY_SIMULATOR": "always",
    }
    done = run_cli("check", **env)

    assert done.returncode == 0
    assert "settings: backend 'local', because no backend is named" in done.stdout
    assert "what is started: local: simulator (this machine), at no" in done.stdout
    assert "instances of ours: 0" in done.stdout


def test_check_names_what_is_not_used(tmp_path: Path) -> None:
    env = {
        "OLLAMA_PROXY_STATE_DIR": str(tmp_path),
        "OLLAMA_HOST": address_of_nobody(),
        "OLLAMA_PROXY_BACKEND": "local",
        "EXOSCALE_DISK_SIZE": "a lot",
    }
    done = run_cli("check", **env)

    assert done.returncode == 0
    assert "these are not used: EXOSCALE_DISK_SIZE; to use them" in done.stdout


def test_a_command_prints_its_answer_and_logs_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite3").write_bytes(b"no database at all" * 100)
    done = run_cli("check", OLLAMA_PROXY_STATE_DIR=str(tmp_path))

    assert "ollama-proxy: state damaged: " in done.stderr
    assert "state.damaged" not in done.stdout


def test_status_without_a_proxy_names_the_backend_and_why(tmp_path: Path) -> None:
    env = {
        "OLLAMA_PROXY_STATE_DIR": str(tmp_path),
        "OLLAMA_HOST": address_of_nobody(),
        "OLLAMA_PROXY_BACKEND": "local",
    }
    done = run_cli("status", **env)

    assert "backend 'local', because OLLAMA_PROXY_BACKEND names it" in done.stdout


def test_check_finds_a_busy_port(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        done = run_cli(
            "check", OLLAMA_HOST=proxy.url, OLLAMA_PROXY_STATE_DIR=str(tmp_path / "t")
        )

    assert done.returncode == 1
    assert "Address already in use" in done.stdout
