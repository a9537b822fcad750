"""The commands, as a user types them."""

import json
import urllib.request
from pathlib import Path

from ollama_proxy import __version__
from tests.black_box import free_port, proxy_process, run_cli


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
        "sweep",
        "pulls",
        "check",
        "start",
        "deploy",
    ):
        assert command in done.stdout


def test_wake_status_and_stop_talk_to_the_running_proxy(tmp_path: Path) -> None:
    with proxy_process(tmp_path / "s") as proxy:
        host = {"OLLAMA_HOST": proxy.url}
        assert "idle (cold, simulated)" in run_cli("status", **host).stdout
        assert "provisioning (starting" in run_cli("wake", **host).stdout
        proxy.until(lambda: proxy.get("/status")["provisioning_status"] == "ready")
        assert "ready (ready, simulated)" in run_cli("status", **host).stdout
        assert "stopping" in run_cli("stop", **host).stdout
        proxy.until(lambda: proxy.get("/status")["instance_status"] == "cold")


def test_pulls_are_listed_and_ended_by_a_command(tmp_path: Path) -> None:
    with proxy_process(
        tmp_path / "s", OLLAMA_SIMULATOR_PULL="60", OLLAMA_SIMULATOR_MODELS="llama3.2"
    ) as proxy:
        host = {"OLLAMA_HOST": proxy.url}
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
    done = run_cli("status", OLLAMA_HOST=f"127.0.0.1:{free_port()}")

    assert done.returncode == 1
    assert "no ollama-proxy answers at http://127.0.0.1:" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_backend_without_anything_to_deploy_says_so(tmp_path: Path) -> None:
    done = run_cli("deploy", "x:1", OLLAMA_PROXY_STATE_DIR=str(tmp_path))

    assert done.returncode == 2
    assert "the backend 'local' has nothing to be deployed" in done.stderr


def test_sweep_finds_nothing_where_nothing_is_lost(tmp_path: Path) -> None:
    env = {
        "OLLAMA_PROXY_STATE_DIR": str(tmp_path),
        "OLLAMA_HOST": f"127.0.0.1:{free_port()}",
    }
    alone = run_cli("sweep", "--dry-run", **env)
    with proxy_process(tmp_path / "s") as proxy:
        asked = run_cli("sweep", OLLAMA_HOST=proxy.url)

    assert (alone.returncode, asked.returncode) == (0, 0)
    assert alone.stdout == asked.stdout == ("nothing of ours runs that should not\n")


def test_check_examines_without_creating(tmp_path: Path) -> None:
    env = {
        "OLLAMA_PROXY_STATE_DIR": str(tmp_path),
        "OLLAMA_HOST": f"127.0.0.1:{free_port()}",
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
        "OLLAMA_HOST": f"127.0.0.1:{free_port()}",
        "OLLAMA_PROXY_BACKEND": "local",
        "EXOSCALE_DISK_SIZE": "a lot",
    }
    done = run_cli("check", **env)

    assert done.returncode == 0
    assert "these are not used: EXOSCALE_DISK_SIZE; to use them" in done.stdout


def test_status_without_a_proxy_names_the_backend_and_why(tmp_path: Path) -> None:
    env = {
        "OLLAMA_PROXY_STATE_DIR": str(tmp_path),
        "OLLAMA_HOST": f"127.0.0.1:{free_port()}",
        "OLLAMA_PROXY_BACKEND": "local",
    }
    done = run_cli("status", **env)

    assert "backend 'local', because OLLAMA_PROXY_BACKEND names it" in done.stdout


def test_check_finds_a_busy_port(tmp_path: Path) -> None:
    with proxy_process(tmp_path / "s") as proxy:
        done = run_cli(
            "check", OLLAMA_HOST=proxy.url, OLLAMA_PROXY_STATE_DIR=str(tmp_path / "t")
        )

    assert done.returncode == 1
    assert "Address already in use" in done.stdout
