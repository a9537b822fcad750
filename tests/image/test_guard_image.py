"""The guard's image: each line of its Dockerfile, its entrypoint as clouds run it."""

import signal
from pathlib import Path

import pytest

from tests.image.conftest import GUARD_SOURCE
from tests.image.container import DOCKERS, Manner, container
from tests.image.engine import BuildError, Engine

PORT = 8080
TOKEN = "0123456789abcdef"
KNOWN = {"Authorization": f"Bearer {TOKEN}"}
WORKSPACE = ("/workspace",)


def libraries(engine: Engine, tag: str) -> set[str]:
    folder = engine.unpack(tag) / "usr/lib/ollama"
    return {path.name for path in folder.iterdir()}


def guards(engine: Engine, tag: str, manner: Manner, **env: str) -> str:
    """Have the guard and what it guards answer, and end in good order."""
    with container(engine, tag, manner, GUARD_TOKEN=TOKEN, **env) as inside:
        inside.until_it_answers("/-/health", port=PORT)
        for path, headers, expected in (
            ("/", {}, (401, b"")),
            ("/", KNOWN, (200, b"Ollama is running")),
            ("/-/stage", KNOWN, (200, b"ready")),
            ("/-/wanted", {}, (200, b'{"wanted":1\n}')),
        ):
            with inside.ask("GET", path, port=PORT, headers=headers) as answer:
                assert (answer.status, answer.read()) == expected, path
        with inside.ask("POST", "/-/heartbeat", port=PORT, headers=KNOWN) as answer:
            assert answer.status == 204
        inside.signal(signal.SIGTERM)
        assert inside.ended() == 0, inside.log
        return inside.log


def test_the_image_for_gpus_keeps_what_drives_them(
    engine: Engine, guard_image: str
) -> None:
    assert libraries(engine, guard_image) == {
        "cuda_v12",
        "cuda_v13",
        "libggml-cpu.so",
    }


def test_the_image_without_gpus_has_no_library_for_them(
    engine: Engine, guard_parts: None
) -> None:
    engine.build(GUARD_SOURCE, "localhost/guard-none", ACCELERATOR="none")

    assert libraries(engine, "localhost/guard-none") == {"libggml-cpu.so"}
    guards(engine, "localhost/guard-none", Manner(capabilities=DOCKERS))


def test_an_accelerator_that_is_unknown_is_refused(
    engine: Engine, guard_parts: None
) -> None:
    told = ""
    for _ in range(3):  # buildah loses the last words of a failed step now and then
        with pytest.raises(BuildError, match="exit status 1") as caught:
            engine.build(GUARD_SOURCE, "localhost/guard-rocm", ACCELERATOR="rocm")
        told += str(caught.value)
        if "ACCELERATOR is" in told:
            break

    assert "ACCELERATOR is cuda or none, not rocm" in told


def test_a_library_that_needs_openblas_ends_the_build(
    engine: Engine, system: str, guard_parts: None, tmp_path: Path
) -> None:
    needing = tmp_path / "libneedy.so"
    found = next(Path("/usr/lib").glob("*/libssl.so.3")).read_bytes()
    needing.write_bytes(found.replace(b"libcrypto.so.3", b"libopenblas.so"))
    take = f"FROM {system}\nCOPY {needing.name} /usr/lib/ollama/\n"
    take += "RUN cp /bin/true /usr/bin/ollama\n"
    engine.stand_in("docker.io/ollama/ollama:needy", take, needing)

    with pytest.raises(BuildError, match="exit status 1"):
        engine.build(GUARD_SOURCE, "localhost/guard-needy", OLLAMA_VERSION="needy")


def test_models_that_are_named_are_in_it_and_belong_to_who_runs_it(
    engine: Engine, guard_image: str
) -> None:
    root = engine.unpack(guard_image)
    model = root / "workspace/models/blobs/tiny:1b"

    assert model.read_text() == "weights"
    assert (model.stat().st_uid, model.stat().st_gid) == (42420, 42420)
    assert engine.config(guard_image)["Labels"]["ollama-proxy.guard"] == "1"


@pytest.mark.parametrize(
    "manner",
    [
        pytest.param(Manner(capabilities=DOCKERS), id="root"),
        pytest.param(
            Manner(capabilities=DOCKERS, volumes=WORKSPACE), id="root-with-a-volume"
        ),
        pytest.param(Manner(capabilities=DOCKERS, read_only=True), id="root-read-only"),
        pytest.param(Manner(user="0:0"), id="root-without-capabilities"),
        pytest.param(Manner(user="42420:42420"), id="42420"),
        pytest.param(Manner(user="42420:42420", read_only=True), id="42420-read-only"),
        pytest.param(
            Manner(user="42420:42420", read_only=True, volumes=WORKSPACE),
            id="42420-read-only-with-a-volume",
        ),
        pytest.param(
            Manner(user="42420:42420", read_only=True, shm=False, volumes=WORKSPACE),
            id="42420-with-nothing-but-a-volume",
        ),
        pytest.param(Manner(user="1000670000:0"), id="any-user"),
        pytest.param(
            Manner(user="1000670000:0", read_only=True, tmpfs=["/tmp"]),
            id="any-user-read-only",
        ),
    ],
)
def test_it_guards_whoever_runs_it(
    engine: Engine, guard_image: str, manner: Manner
) -> None:
    guards(engine, guard_image, manner)


def test_where_nothing_can_be_written_it_says_what_is_needed(
    engine: Engine, guard_image: str
) -> None:
    manner = Manner(user="42420:42420", read_only=True, shm=False)
    with container(engine, guard_image, manner, GUARD_TOKEN=TOKEN) as inside:
        assert inside.ended() == 73
        assert "mount a tmpfs at /tmp" in inside.log


@pytest.mark.parametrize("manner", [Manner(), Manner(user="42420:42420")])
def test_without_a_token_nothing_starts(
    engine: Engine, guard_image: str, manner: Manner
) -> None:
    with container(engine, guard_image, manner) as inside:
        assert inside.ended() == 64
        assert "GUARD_TOKEN is missing" in inside.log


def test_a_service_named_ollama_does_no_harm(engine: Engine, guard_image: str) -> None:
    env = {
        "OLLAMA_SERVICE_HOST": "10.96.12.7",
        "OLLAMA_SERVICE_PORT": "11434",
        "OLLAMA_PORT": "tcp://10.96.12.7:11434",
        "OLLAMA_PORT_11434_TCP": "tcp://10.96.12.7:11434",
        "OLLAMA_PORT_11434_TCP_PROTO": "tcp",
        "OLLAMA_PORT_11434_TCP_PORT": "11434",
        "OLLAMA_PORT_11434_TCP_ADDR": "10.96.12.7",
    }

    guards(engine, guard_image, Manner(user="42420:42420"), **env)
