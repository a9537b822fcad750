"""What users of the older sidecar set is understood by the entrypoint, run here."""

import shutil
from pathlib import Path

import pytest

from tests.container.rig import TOKEN, Container, container
from tests.ports import two_held_ports

pytestmark = pytest.mark.skipif(
    shutil.which("caddy") is None or not Path("/proc/self/stat").exists(),
    reason="there is no `caddy` on the PATH, or no /proc",
)


def pulled(inside: Container) -> list[str]:
    calls = inside.folder / "told/calls"
    text = calls.read_text() if calls.exists() else ""
    lines = text.splitlines()
    return [line.removeprefix("pull ") for line in lines if line.startswith("pull ")]


def served(inside: Container) -> dict[str, str]:
    text = (inside.folder / "told/env").read_text()
    return dict(line.partition("=")[::2] for line in text.splitlines())


@pytest.mark.parametrize(
    "wished", ["one:1b,two:1b", "one:1b, two:1b", "one:1b two:1b", "one:1b,,two:1b\r\n"]
)
async def test_a_list_of_models_takes_the_place_of_the_file(wished: str) -> None:
    async with container(preload="other\n", OLLAMA_PRELOAD_MODELS=wished) as inside:
        await inside.until(lambda: len(pulled(inside)) == 2)

        assert pulled(inside) == ["one:1b", "two:1b"]


async def test_a_file_from_windows_with_comments_is_read() -> None:
    file = "# models\r\none:1b\r\n\r\n  two:1b # small\r\nthree"
    async with container(preload=file) as inside:
        await inside.until(lambda: len(pulled(inside)) == 3)

        assert pulled(inside) == ["one:1b", "two:1b", "three"]


async def test_a_name_that_would_be_an_option_is_not_pulled() -> None:
    async with container(OLLAMA_PRELOAD_MODELS="--insecure,one") as inside:
        await inside.until(lambda: pulled(inside) == ["one"])

        assert "--insecure is no name" in (inside.folder / "stderr").read_text()


async def test_a_pull_without_network_is_tried_again() -> None:
    fails_twice = (
        'n=$(grep -c "^pull" "${0%/bin/ollama}/told/calls"); [ "$n" -ge 3 ] && exit 0;'
        " echo Error: dial tcp: no such host >&2; exit 1"
    )
    async with container(
        pull=fails_twice, OLLAMA_PRELOAD_MODELS="one", RETRY_PAUSE="0.1"
    ) as inside:
        await inside.until(lambda: len(pulled(inside)) == 3)
        told = (inside.folder / "stderr").read_text()

    assert "could not be pulled" not in told


async def test_a_model_that_no_registry_has_is_named_after_one_try() -> None:
    unknown = "echo Error: pull model manifest: file does not exist >&2; exit 1"
    async with container(pull=unknown, OLLAMA_PRELOAD_MODELS="nope,one") as inside:
        await inside.until(lambda: pulled(inside) == ["nope", "one"])
        stderr = inside.folder / "stderr"
        await inside.until(lambda: "nope could not be pulled" in stderr.read_text())

        assert "file does not exist" in stderr.read_text()


async def test_the_old_port_is_the_guards_and_ollama_moves_out_of_its_way() -> None:
    port = two_held_ports()
    async with container(
        PORT="", OLLAMA_HTTP_PORT=str(port), OLLAMA_PORT=str(port)
    ) as inside:
        inside.url = f"http://127.0.0.1:{port}"
        await inside.until_it_serves()
        known = {"Authorization": f"Bearer {TOKEN}"}

        assert await inside.ask("/", **known) == (200, "Ollama is running")
        assert (await inside.ask("/"))[0] == 401
        assert served(inside)["OLLAMA_HOST"] == f"127.0.0.1:{port + 1}"


def old_volume(folder: Path, below: str) -> Path:
    """Return a volume that all may write, with a store of models below a path."""
    volume = folder / "data"
    (volume / below.lstrip("/") / "blobs").mkdir(parents=True)
    for path in (volume, *volume.rglob("*")):
        path.chmod(0o777)
    for parent in volume.parents:
        parent.chmod(parent.stat().st_mode | 0o011)
    return volume


@pytest.mark.parametrize("below", ["", "/models", "/.ollama/models"])
@pytest.mark.parametrize("by", ["variable", "volume"])
async def test_the_old_cache_is_found_as_it_lies_on_its_volume(
    below: str, by: str, tmp_path: Path
) -> None:
    volume = old_volume(tmp_path, below)
    name = "OLLAMA_MODEL_CACHE_DIR" if by == "variable" else "OLD_VOLUME"
    async with container(OLLAMA_MODELS="", **{name: str(volume)}) as inside:  # type: ignore[arg-type]  # an environment
        await inside.until((inside.folder / "told/env").exists)
        await inside.until(lambda: "OLLAMA_MODELS" in served(inside))

        assert served(inside)["OLLAMA_MODELS"] == f"{volume}{below}"


async def test_of_two_folders_for_models_the_newer_name_wins_and_is_told() -> None:
    async with container(OLLAMA_MODEL_CACHE_DIR="/nowhere") as inside:
        await inside.until((inside.folder / "told/env").exists)
        await inside.until(lambda: "OLLAMA_MODELS" in served(inside))

        assert served(inside)["OLLAMA_MODELS"] == f"{inside.folder}/models"
        told = (inside.folder / "stderr").read_text()
        assert "so /nowhere is not used" in told
