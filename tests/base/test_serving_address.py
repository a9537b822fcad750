"""The address of a state folder's proxy: there while it serves, for its owner."""

import contextlib
import os
from pathlib import Path

import pytest

from ollama_proxy.base.serving_address import running_proxy, written_down
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.black_box import (
    Launch,
    forked_proxy,
    launched_proxy,
    run_cli,
)
from tests.ports import address_of_nobody

URL = "http://127.0.0.1:4321"


def url_of(folder: Path) -> str:
    running = running_proxy(folder)
    assert running is not None
    return running.url


def test_it_is_there_while_the_proxy_has_the_folder(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with written_down(tmp_path, URL):
        assert url_of(tmp_path) == URL
        assert (tmp_path / "serving.json").stat().st_mode & 0o777 == 0o600
    store.close()

    assert running_proxy(tmp_path) is None
    assert not (tmp_path / "serving.json").exists()


def test_what_a_killed_proxy_left_is_not_believed(tmp_path: Path) -> None:
    """Its number may be another process' by now: ours, which has no such lock."""
    with written_down(tmp_path, URL):
        assert running_proxy(tmp_path) is None


@pytest.mark.parametrize(
    "left",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"url": 1, "pid": 1}',
        b'{"url": "x", "pid": -1}',
        b'{"url": "x", "pid": 999999999}',
        b'{"url": "x", "pid": 99999999999999999999}',
    ],
)
def test_what_can_not_be_read_is_no_address(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "serving.json").write_bytes(left)

    assert running_proxy(tmp_path) is None
    assert running_proxy(tmp_path / "nowhere") is None


def test_only_a_web_address_is_one(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStore(tmp_path)):
        with written_down(tmp_path, "file:///etc/passwd#"):
            assert running_proxy(tmp_path) is None
        with written_down(tmp_path, URL):
            assert url_of(tmp_path) == URL


def test_a_folder_that_can_not_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "serving.new").mkdir()
    with written_down(tmp_path, URL):
        assert running_proxy(tmp_path) is None


def test_commands_find_the_proxy_of_their_state_folder(tmp_path: Path) -> None:
    state = tmp_path / "s"
    env = {"OLLAMA_PROXY_STATE_DIR": str(state)}
    with forked_proxy(state) as proxy:
        shown = run_cli("status", **env)
        woken = run_cli("wake", **env)
        pulls = run_cli("pulls", **env)
        stopped = run_cli("stop", **env)
        proxy.terminate()
        ended = run_cli("status", **env, OLLAMA_HOST=address_of_nobody())

    assert shown.stdout.splitlines()[0].split() == ["proxy", proxy.url]
    assert "provisioning (starting" in woken.stdout
    assert pulls.stdout == "no pull goes on\n"
    assert "stopping" in stopped.stdout
    assert [done.stderr for done in (shown, woken, pulls, stopped)] == [""] * 4
    assert ended.returncode == 1
    assert "no ollama-proxy answers at http://127.0.0.1:" in ended.stderr


def test_another_address_is_asked_first_and_then_that_of_the_folder(
    tmp_path: Path,
) -> None:
    state = tmp_path / "s"
    nobody = f"http://{address_of_nobody()}"
    env = {"OLLAMA_PROXY_STATE_DIR": str(state), "OLLAMA_HOST": nobody}
    with forked_proxy(state) as proxy, forked_proxy(tmp_path / "t") as other:
        told = run_cli("status", **env)
        json = run_cli("status", "--json", **env)
        asked = run_cli("status", **env | {"OLLAMA_HOST": other.url})

    assert told.returncode == json.returncode == 0
    assert told.stdout.splitlines()[0].split() == ["proxy", proxy.url]
    assert told.stderr == json.stderr
    assert told.stderr == (
        f"ollama-proxy: no ollama-proxy answers at {nobody}; the one of the state"
        f" folder {str(state)!r} is asked, at {proxy.url}\n"
    )
    assert asked.stdout.splitlines()[0].split() == ["proxy", other.url]
    assert asked.stderr == ""


def test_a_port_that_the_system_chose_is_found_by_the_commands(tmp_path: Path) -> None:
    state = tmp_path / "s"
    launch = Launch(options=("--port", "0"))
    with launched_proxy(state, launch, {"OLLAMA_HOST": "127.0.0.1:1"}) as proxy:
        done = run_cli("status", OLLAMA_PROXY_STATE_DIR=str(state))

    assert not proxy.url.endswith((":0", ":1"))
    assert done.stdout.splitlines()[0].split() == ["proxy", proxy.url]


def test_a_killed_proxy_is_noticed(tmp_path: Path) -> None:
    state, elsewhere = tmp_path / "s", address_of_nobody()
    with forked_proxy(state) as proxy:
        proxy.kill()
        left = (state / "serving.json").read_text()
        done = run_cli(
            "status", OLLAMA_PROXY_STATE_DIR=str(state), OLLAMA_HOST=elsewhere
        )

    assert proxy.url in left
    assert str(os.getpid()) not in left
    assert done.returncode == 1
    assert f"no ollama-proxy answers at http://{elsewhere} (" in done.stderr
