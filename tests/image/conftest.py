"""Both images, built once; or one line that says why not."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.image import needs
from tests.image.base import PYTHON, SUITE, base_archive
from tests.image.engine import Engine

ROOT = Path(__file__).parents[2]
GUARD_SOURCE = ROOT / "cloud-init" / "container"
PROXY = "localhost/ollama-proxy"
STUB = Path(__file__).with_name("ollama_stub.py")
_MOST_S = 1200
_TOLD = pytest.StashKey[str]()


def pytest_sessionstart() -> None:
    """Run nothing where nothing can be shown."""
    if why := needs.missing():
        pytest.exit(f"image-test: not run: {why}", returncode=0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test the time in which both images are built."""
    for item in items:
        item.add_marker(pytest.mark.timeout(_MOST_S))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what stood in for the images that no registry was asked for."""
    if told := terminalreporter.config.stash.get(_TOLD, ""):
        terminalreporter.write_line(f"image-test: {told}")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Have a store of images of our own; one run at a time."""
    folder = needs.cache()
    with FileLock(folder / "lock"):
        made = Engine(folder / "store")
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="session")
def system(engine: Engine, pytestconfig: pytest.Config) -> str:
    """Make the stand-in for the image that the Dockerfile begins with."""
    archive = base_archive(engine.folder)
    name = f"docker.io/library/{_begins_with(ROOT / 'Dockerfile')[0]}"
    engine.stand_in(name, f"FROM scratch\nADD {archive.name} /\n", archive)
    root = engine.unpack(name)
    version = needs.run("chroot", root, "python", "-VV").split()[1]
    assert tuple(map(int, version.split(".")[:2])) >= PYTHON
    pytestconfig.stash[_TOLD] = (
        f"Debian {SUITE} with its own Python {version} stood in for the images that the"
        " Dockerfiles begin with, so real sizes, GPUs and models are not shown"
    )
    return name


def _begins_with(dockerfile: Path) -> list[str]:
    """Return the images of the FROM lines that are no stages, each once."""
    text = dockerfile.read_text()
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    stages = set(re.findall(r"^FROM .* AS (\w+)$", text, re.MULTILINE))
    names = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    filled = [re.sub(r"\$\{(\w+)\}", lambda m: defaults[m[1]], name) for name in names]
    return [name for name in dict.fromkeys(filled) if name not in stages]


@pytest.fixture(scope="session")
def proxy_image(engine: Engine, system: str) -> str:
    """Build every stage of our own image."""
    engine.build(ROOT, PROXY)
    return PROXY


@pytest.fixture(scope="session")
def guard_parts(engine: Engine, system: str) -> None:
    """Make the stand-ins for the images that the guard's image begins with."""
    caddy, ollama, ubuntu = _begins_with(GUARD_SOURCE / "Dockerfile")
    engine.buildah("tag", system, f"docker.io/library/{ubuntu}")
    program = Path(shutil.which("caddy") or "")
    take = f"FROM {system}\nCOPY {program.name} /usr/bin/caddy\n"
    engine.stand_in(f"docker.io/library/{caddy}", take, program)
    folders = "cuda_v12 cuda_v13 rocm vulkan mlx_metal_v3"
    libraries = " ".join(f"/usr/lib/ollama/{name}" for name in folders.split())
    take = (
        f"FROM {system}\n"
        f"RUN mkdir -p {libraries} && touch /usr/lib/ollama/libggml-cpu.so\n"
        f"COPY --chmod=0755 {STUB.name} /usr/bin/ollama\n"
    )
    engine.stand_in(f"docker.io/{ollama}", take, STUB)


@pytest.fixture(scope="session")
def guard_image(engine: Engine, guard_parts: None) -> str:
    """Build every stage of the guard's image, with a model in it."""
    tag = "localhost/guard-cuda"
    engine.build(GUARD_SOURCE, tag, MODELS="tiny:1b")
    return tag
