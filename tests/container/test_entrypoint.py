"""The entrypoint of the container image, run here with a real Caddy."""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import aiohttp
import pytest

from ollama_proxy.backends.fly.sizes import SIZES
from tests.container.rig import SOURCE, TOKEN, USER, container

pytestmark = pytest.mark.skipif(
    shutil.which("caddy") is None or not Path("/proc/self/stat").exists(),
    reason="there is no `caddy` on the PATH, or no /proc",
)
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root changes its user")
SHELLCHECK = str(Path(sys.executable).with_name("shellcheck"))


@needs_root
@pytest.mark.parametrize("as_root", [True, False])
async def test_everything_runs_as_the_one_user(as_root: bool) -> None:
    async with container(as_root=as_root) as inside:
        await inside.until_it_serves()
        users = inside.users()

    assert users == {str(USER)}


@pytest.mark.parametrize("token", ["", "short", "no spaces in a token", "*" * 20])
async def test_without_a_good_token_nothing_starts(token: str) -> None:
    async with container(GUARD_TOKEN=token) as inside:
        status = await inside.ended()
        told = (inside.folder / "stderr").read_text()

        assert status == 64
        assert "GUARD_TOKEN" in told
        assert not (inside.folder / "told/calls").exists()


@pytest.mark.parametrize("name", ["DEAD_MAN_S", "MAX_LIFETIME_S", "IDLE_S"])
async def test_a_length_with_a_unit_is_refused_and_not_taken_for_never(
    name: str,
) -> None:
    length = {name: "20m"}
    async with container(ollama="exit 1", **length) as inside:  # type: ignore[arg-type]  # an environment
        assert await inside.ended() == 64
        assert "without a unit" in (inside.folder / "stderr").read_text()


async def test_behind_a_gateway_that_checks_callers_there_is_no_second_check() -> None:
    async with container(GUARD="platform", GUARD_TOKEN="") as inside:
        await inside.until_it_serves()

        assert await inside.ask("/") == (200, "Ollama is running")
        assert await inside.ask("/-/stage") == (200, "ready")


async def test_no_log_tells_the_token() -> None:
    async with container(ollama="sleep 60") as inside:
        known = {"X_Ollama_Proxy_Token": TOKEN, "Authorization": f"Bearer {TOKEN}"}
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    if (await inside.ask("/api/tags", **known))[0] == 502:
                        break
                await asyncio.sleep(0.05)
        told = (inside.folder / "stderr").read_text()

    assert "connection refused" in told
    assert TOKEN not in told


@pytest.mark.parametrize("path", ["/", "/api/tags", "/-/stage", "/-/heartbeat", "/v1/"])
@pytest.mark.parametrize("token", ["", "Bearer wrong", f"Basic {TOKEN}"])
async def test_nobody_gets_in_without_the_token(path: str, token: str) -> None:
    async with container() as inside:
        await inside.until_it_serves()
        status, _ = await inside.ask(path, Authorization=token)
        other, _ = await inside.ask(path, X_Ollama_Proxy_Token="wrong")

    assert (status, other) == (401, 401)


@pytest.mark.parametrize(
    "known", [{"Authorization": f"Bearer {TOKEN}"}, {"X_Ollama_Proxy_Token": TOKEN}]
)
async def test_the_token_opens_in_either_header(known: dict[str, str]) -> None:
    async with container() as inside:
        await inside.until_it_serves()
        stage = await inside.ask("/-/stage", **known)
        answer = await inside.ask("/", **known)

    assert stage == (200, "ready")
    assert answer == (200, "Ollama is running")


@pytest.mark.parametrize("ollama", ["", "trap '' TERM\nsleep 60 & wait $!; sleep 60"])
async def test_a_term_ends_everything_and_leaves_nothing(ollama: str) -> None:
    stub = ollama or "exec caddy respond --listen $OLLAMA_HOST x"
    async with container(ollama=stub, GRACE_TENTHS="5") as inside:
        await inside.until((inside.folder / "told/env").exists)
        await asyncio.sleep(0.3)
        inside.process.terminate()
        status = await inside.ended()
        left = [_command(pid) for pid in inside.members()]

    assert status == 0
    assert [command for command in left if not command.startswith("sleep")] == []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return "sleep"  # it has ended under the look


async def test_when_ollama_ends_the_container_ends() -> None:
    async with container(ollama="exit 3") as inside:
        assert await inside.ended() == 1
        assert "Ollama has ended" in (inside.folder / "stderr").read_text()


async def test_when_the_proxy_falls_silent_the_container_ends() -> None:
    async with container(DEAD_MAN_S="1") as inside:
        assert await inside.ended() == 0
        assert "not heard of" in (inside.folder / "stderr").read_text()


async def test_heartbeats_keep_it() -> None:
    async with container(DEAD_MAN_S="2") as inside:
        await inside.until_it_serves()
        statuses = set()
        for _ in range(15):
            statuses.add(await inside.beat())
            await asyncio.sleep(0.2)
        still_there = inside.process.returncode is None
        status = await inside.ended()

    assert statuses == {204}
    assert still_there
    assert status == 0


async def test_its_longest_life_ends_in_spite_of_heartbeats() -> None:
    async with container(DEAD_MAN_S="60", MAX_LIFETIME_S="1") as inside:
        assert await inside.ended() == 0
        assert "longest life" in (inside.folder / "stderr").read_text()


async def test_a_platform_that_starts_again_what_ended_is_told_by_the_metric() -> None:
    async with container(DEAD_MAN_S="1", DEAD_MAN="metric") as inside:
        await inside.until_it_serves()
        await inside.beat()
        before = await _wanted(inside.ask)
        async with asyncio.timeout(10):
            while await _wanted(inside.ask):
                await asyncio.sleep(0.05)
        await inside.beat()
        async with asyncio.timeout(10):
            while not await _wanted(inside.ask):
                await asyncio.sleep(0.05)

        assert before == 1
        assert inside.process.returncode is None


async def _wanted(ask: object) -> int:
    assert callable(ask)
    status, told = await ask("/-/wanted")
    assert status == 200
    assert told.replace("\n", "") in {'{"wanted":0}', '{"wanted":1}'}
    return int("1" in told)


@needs_root
async def test_a_store_that_can_only_be_read_is_not_pruned() -> None:
    async with container(read_only=True) as inside:
        await inside.until_it_serves()
        environment = (inside.folder / "told/env").read_text()
        told = (inside.folder / "stderr").read_text()

    assert "OLLAMA_NOPRUNE=1" in environment
    assert f"the folder {inside.folder}/models can only be read" in told
    assert "put models into the bucket of OLLAMA_VOLUME" in told


@needs_root
async def test_where_no_model_is_or_can_be_put_they_go_where_the_rest_goes() -> None:
    """Ollama does not start over a store that is empty and can't be written."""
    async with container(read_only=True, has_models=False) as inside:
        await inside.until_it_serves()
        environment = (inside.folder / "told/env").read_text()
        told = (inside.folder / "stderr").read_text()

    assert "OLLAMA_NOPRUNE" not in environment
    assert re.search(r"OLLAMA_MODELS=/tmp/ollama-proxy\.\w+/models", environment)
    assert f"{inside.folder}/models can't be written and is empty" in told
    assert "put models into the bucket of OLLAMA_VOLUME" in told


@needs_root
async def test_with_a_home_that_can_not_be_written_ollama_gets_another() -> None:
    """It writes a key in its home, or does not start."""
    async with container(HOME="/nowhere") as inside:
        await inside.until_it_serves()
        environment = (inside.folder / "told/env").read_text()

    assert re.search(r"^HOME=/tmp/ollama-proxy\.\w+$", environment, re.MULTILINE)


async def test_without_a_folder_for_temporary_files_another_is_taken() -> None:
    async with container(TMPDIR="/nowhere", DEAD_MAN_S="60") as inside:
        await inside.until_it_serves()
        assert await inside.beat() == 204
        inside.process.terminate()
        assert await inside.ended() == 0

    assert _of_entrypoints("/dev/shm") == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_a_proxy_in_the_environment_is_not_for_what_is_inside(name: str) -> None:
    proxy = {name: "http://127.0.0.1:9"}
    async with container(**proxy) as inside:  # type: ignore[arg-type]  # an environment
        await inside.until_it_serves()
        assert await inside.beat() == 204


def _of_entrypoints(folder: str) -> list[Path]:
    return [*Path(folder).glob("ollama-proxy.*")]


@pytest.mark.parametrize("address", ["10.96.12.7", "[fd00::7]"])
async def test_a_service_of_kubernetes_named_ollama_is_no_setting(address: str) -> None:
    async with container(OLLAMA_PORT=f"tcp://{address}:11434", ollama="sleep 9") as it:
        told = it.folder / "told/env"
        await it.until(lambda: told.exists() and "OLLAMA_HOST=" in told.read_text())
        environment = told.read_text()

    assert "OLLAMA_HOST=127.0.0.1:11434\n" in environment


@pytest.mark.parametrize("name", ["PORT", "OLLAMA_PORT"])
@pytest.mark.parametrize("port", ["http", "80 81", ":80", "-1", "${PORT}"])
async def test_a_port_that_is_no_number_is_refused(name: str, port: str) -> None:
    async with container(ollama="exit 1", **{name: port}) as inside:  # type: ignore[arg-type]  # an environment
        assert await inside.ended() == 64
        told = (inside.folder / "stderr").read_text()

    assert "PORT and OLLAMA_PORT are numbers, not " in told
    assert port in told


async def test_ollama_does_not_know_the_token_and_may_write_its_store() -> None:
    async with container() as inside:
        await inside.until_it_serves()
        environment = (inside.folder / "told/env").read_text()

    assert TOKEN not in environment
    assert "NOPRUNE" not in environment
    assert "OLLAMA_HOST=127.0.0.1:" in environment


async def test_the_models_of_the_list_are_pulled() -> None:
    preload = "# mine\n\nllama3.2:1b\n  nomic-embed-text  # small\n"
    async with container(preload=preload) as inside:
        calls = inside.folder / "told/calls"
        await inside.until(
            lambda: calls.exists() and "nomic" in calls.read_text(),
        )
        told = calls.read_text().splitlines()

    assert [line for line in told if line.startswith("pull")] == [
        "pull llama3.2:1b",
        "pull nomic-embed-text",
    ]


def _bake(folder: Path, stub: str, *models: str) -> "subprocess.CompletedProcess[str]":
    program = folder / "ollama"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n{stub}\n')
    program.chmod(0o755)
    return subprocess.run(
        ["sh", str(SOURCE / "bake.sh"), *models],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )


def test_models_are_baked_one_by_one(tmp_path: Path) -> None:
    serve = '[ "$1" != serve ] || exec sleep 60'
    done = _bake(tmp_path, serve, "llama3.2", "qwen3:4b")
    calls = (tmp_path / "calls").read_text().splitlines()

    assert done.returncode == 0, done.stderr
    pulls = [call for call in calls if call.startswith("pull")]
    assert pulls == ["pull llama3.2", "pull qwen3:4b"]


def test_a_model_that_cannot_be_pulled_fails_the_build(tmp_path: Path) -> None:
    stub = '[ "$1" != pull ] || exit 1\n[ "$1" != serve ] || exec sleep 60'

    assert _bake(tmp_path, stub, "none").returncode == 1


def test_without_models_nothing_is_started(tmp_path: Path) -> None:
    assert _bake(tmp_path, "exit 1").returncode == 0
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("script", ["entrypoint.sh", "bake.sh"])
def test_shellcheck_finds_nothing(script: str) -> None:
    done = subprocess.run(
        [SHELLCHECK, "--shell=sh", str(SOURCE / script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_everything_that_the_dockerfile_copies_is_there() -> None:
    lines = (SOURCE / "Dockerfile").read_text().splitlines()
    copied = [
        name
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
        if not name.startswith("--")
    ]

    others = {"Dockerfile", "fly.toml"}
    assert set(copied) == {path.name for path in SOURCE.iterdir()} - others


def test_the_sidecar_on_fly_reaches_the_guard_and_keeps_its_models() -> None:
    config = tomllib.loads((SOURCE / "fly.toml").read_text())
    service, (machine,) = config["http_service"], config["vm"]
    dockerfile = (SOURCE / "Dockerfile").read_text()

    assert f"EXPOSE {service['internal_port']}\n" in dockerfile
    assert service["min_machines_running"] == 0
    # Fly's autostop sees no preload; the entrypoint does, and ends with 0 when idle.
    assert service["auto_stop_machines"] == "off"
    assert service["auto_start_machines"] is True
    assert int(config["env"]["IDLE_S"]) > 0
    assert config["restart"][0]["policy"] == "on-failure"
    assert config["env"]["OLLAMA_MODELS"] == config["mounts"]["destination"]
    assert machine["size"] in SIZES
    assert "GUARD_TOKEN" not in config["env"]
    for name in config["build"]["args"]:
        assert f"ARG {name}" in dockerfile
