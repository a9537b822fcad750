"""The image of the Dockerfile, built as it stands and run as people run it."""

import json
import re
import signal
import time

import pytest

from tests.image.container import DOCKERS, Container, Manner, container
from tests.image.engine import Engine

PORT = 11434
SIMULATED = {
    "OLLAMA_SIMULATOR_BOOT": "0.1",
    "OLLAMA_SIMULATOR_LOAD": "0.1",
    "OLLAMA_SIMULATOR_PULL": "0.1",
    "OLLAMA_SIMULATOR_RATE": "20",
}
ON_A_VOLUME = ("/state",)


def checked(
    engine: Engine, tag: str, inside: Container, *, user: str = "0:0", **env: str
) -> tuple[int, str]:
    """Run the health check as an engine does: what the image says, inside.

    ``user``: without rights over others, root sees nothing of the state folder.
    """
    kind, *command = engine.config(tag)["Healthcheck"]["Test"]
    assert kind == "CMD"
    return inside.run(*command, env=env, user=user)


def serves(engine: Engine, tag: str, manner: Manner, **env: str) -> str:
    """Have a container answer, be healthy and end in good order; return its log."""
    with container(engine, tag, manner, **env) as inside:
        inside.until_it_answers("/healthz", port=PORT)
        assert checked(engine, tag, inside) == (0, f"http://127.0.0.1:{PORT} serves\n")
        inside.signal(signal.SIGTERM)
        assert inside.ended() == 0, inside.log
        return inside.log


def test_every_stage_is_built_and_no_tool_is_left(
    engine: Engine, proxy_image: str
) -> None:
    root = engine.unpack(proxy_image)
    site = next(root.glob("opt/venv/lib/python*/site-packages"))
    left = {path.name.partition("-")[0] for path in site.glob("*.dist-info")}

    assert "ollama_proxy" in left
    assert next(site.glob("ollama_proxy-*.dist-info/licenses/LICENSE")).stat().st_size
    assert not left & {"pip", "hatchling", "editables", "setuptools", "wheel"}
    assert not (root / "opt/venv/bin/pip").exists()
    assert not (root / "opt/build").exists()
    assert not (root / "src").exists()


def test_nothing_of_the_machine_that_builds_it_is_in_it(
    engine: Engine, proxy_image: str
) -> None:
    root = engine.unpack(proxy_image)

    assert [*(root / "etc/xdg/pip").iterdir()] == []
    assert not (root / "etc/pip.conf").exists()
    names = {text.partition("=")[0] for text in engine.config(proxy_image)["Env"]}
    ours = {
        "PYTHONUNBUFFERED",
        "CONTAINER_IMAGE",
        "OLLAMA_HOST",
        "OLLAMA_PROXY_STATE_DIR",
    }
    assert names == {"PATH", *ours}


def test_it_serves_on_every_address(engine: Engine, proxy_image: str) -> None:
    with container(engine, proxy_image, Manner(volumes=ON_A_VOLUME)) as inside:
        inside.until_it_answers("/healthz", port=PORT)
        with inside.ask("GET", "/", port=PORT, host="127.0.0.2") as answer:
            assert (answer.status, answer.read()) == (200, b"Ollama is running")
        code, users = inside.run("stat", "-c", "%u", "/proc/1")

    assert (code, users) == (0, "10434\n")


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_in_the_environment_does_not_make_it_unhealthy(
    engine: Engine, proxy_image: str, name: str
) -> None:
    env = {name: "http://127.0.0.1:9"}

    serves(engine, proxy_image, Manner(volumes=ON_A_VOLUME), **env)


def test_the_health_check_follows_the_address_and_fails_where_nothing_serves(
    engine: Engine, proxy_image: str
) -> None:
    with container(engine, proxy_image, OLLAMA_HOST="127.0.0.1:8000") as inside:
        inside.until_it_answers("/healthz", port=8000)
        good = checked(engine, proxy_image, inside)
        bad, told = checked(engine, proxy_image, inside, OLLAMA_HOST="127.0.0.1:8001")

    assert good == (0, "http://127.0.0.1:8000 serves\n")
    assert (bad, told.count("\n")) == (1, 1), told


def test_told_to_end_in_mid_stream_it_finishes_the_stream(
    engine: Engine, proxy_image: str
) -> None:
    """It is the first process: no init forwards a signal to it, or reaps children."""
    body = {"model": "llama3.2", "prompt": "hello " * 20}
    headers = {"Prefer": "wait=60"}
    with container(engine, proxy_image, Manner(), **SIMULATED) as inside:
        inside.until_it_answers("/healthz", port=PORT)
        with inside.ask(
            "POST", "/api/generate", port=PORT, body=body, headers=headers
        ) as answer:
            assert answer.status == 200, answer.read()
            first = answer.readline()
            inside.signal(signal.SIGTERM)
            rest = answer.read().splitlines()
        status = inside.ended()

    assert json.loads(first)["done"] is False
    assert len(rest) > 3
    assert json.loads(rest[-1])["done"] is True
    assert status == 0


@pytest.mark.parametrize(
    "manner",
    [
        pytest.param(Manner(), id="no-volume"),
        pytest.param(Manner(capabilities=DOCKERS), id="dockers-capabilities"),
        pytest.param(Manner(read_only=True, volumes=ON_A_VOLUME), id="read-only"),
        pytest.param(Manner(read_only=True, tmpfs=["/state"]), id="in-memory"),
        pytest.param(Manner(user="0:0"), id="root"),
        pytest.param(Manner(user="1000670000:0"), id="any-user-of-group-0"),
        pytest.param(
            Manner(user="1000670000:0", read_only=True, volumes=ON_A_VOLUME),
            id="any-user-of-group-0-read-only",
        ),
        pytest.param(
            Manner(user="42420:42420", volumes=ON_A_VOLUME, volumes_fit=True),
            id="any-user-with-a-volume",
        ),
        pytest.param(
            Manner(user="42420:42420", read_only=True, shm=False, tmpfs=["/state"]),
            id="any-user-in-memory",
        ),
    ],
)
def test_it_serves_whoever_runs_it(
    engine: Engine, proxy_image: str, manner: Manner
) -> None:
    log = serves(engine, proxy_image, manner)

    assert "Traceback" not in log


@pytest.mark.parametrize(
    "manner",
    [
        pytest.param(Manner(arguments=["node"], volumes=ON_A_VOLUME), id="volume"),
        pytest.param(
            Manner(arguments=["node"], read_only=True, tmpfs=["/state"]), id="in-memory"
        ),
    ],
)
def test_it_runs_the_agent_of_a_hub_and_its_health_check_asks_that(
    engine: Engine, proxy_image: str, manner: Manner
) -> None:
    """The hub and Ollama are away: the agent goes on, and says so."""
    env = {"SERVER_URL": "http://127.0.0.1:9", "NODE_ID": "box"}
    with container(engine, proxy_image, manner, **env) as inside:
        inside.until_it_answers("/healthz", port=8001)
        good = checked(engine, proxy_image, inside, user=inside.user)
        inside.signal(signal.SIGTERM)
        code, log = inside.ended(), inside.log
    assert good == (0, "http://127.0.0.1:8001 serves\n")
    assert code == 0, log
    assert '"event":"hub.away"' in log
    assert "Traceback" not in log


@pytest.mark.parametrize("home", ["", "/", "/nowhere"])
def test_it_serves_without_a_home(engine: Engine, proxy_image: str, home: str) -> None:
    serves(engine, proxy_image, Manner(user="1000670000:0"), HOME=home)


@pytest.mark.parametrize(
    "manner",
    [
        pytest.param(Manner(user="42420:42420"), id="not-his"),
        pytest.param(Manner(read_only=True), id="read-only"),
    ],
)
def test_state_that_can_not_be_kept_is_one_sentence(
    engine: Engine, proxy_image: str, manner: Manner
) -> None:
    with container(engine, proxy_image, manner) as inside:
        status = inside.ended()
        log = inside.log

    assert status == 2
    assert re.fullmatch(
        r"ollama-proxy: the state folder '/state' can't be written \([\w -]+\); set"
        r" OLLAMA_PROXY_STATE_DIR to a folder that can\n",
        log,
    )


def test_a_service_named_as_the_proxy_does_no_harm(
    engine: Engine, proxy_image: str
) -> None:
    env = {
        "OLLAMA_PROXY_SERVICE_HOST": "10.96.12.7",
        "OLLAMA_PROXY_SERVICE_PORT": "11434",
        "OLLAMA_PROXY_PORT": "tcp://10.96.12.7:11434",
        "OLLAMA_PROXY_PORT_11434_TCP": "tcp://10.96.12.7:11434",
        "OLLAMA_PROXY_PORT_11434_TCP_PROTO": "tcp",
        "OLLAMA_PROXY_PORT_11434_TCP_PORT": "11434",
        "OLLAMA_PROXY_PORT_11434_TCP_ADDR": "10.96.12.7",
    }

    serves(engine, proxy_image, Manner(), **env)


def test_the_state_outlives_the_container(engine: Engine, proxy_image: str) -> None:
    with container(engine, proxy_image, Manner(volumes=ON_A_VOLUME)) as inside:
        inside.until_it_answers("/healthz", port=PORT)
        code, told = inside.run("ls", "/state")

    assert code == 0
    assert "state.sqlite3" in told


def test_the_log_is_there_while_it_runs(engine: Engine, proxy_image: str) -> None:
    with container(engine, proxy_image) as inside:
        inside.until_it_answers("/healthz", port=PORT)
        time.sleep(0.2)
        log = inside.log

    assert '"event":"proxy.started"' in log
    assert "Type next" in log
