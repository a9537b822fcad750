"""The wheel holds what it should, and runs where nothing else is."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ollama_proxy import __version__

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={name: os.environ[name] for name in os.environ if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "hatchling", "build", "--target", "wheel")
    run(*build, "--directory", folder, cwd=ROOT)
    return next(folder.glob("*.whl"))


def expected_files() -> set[str]:
    """Return what the checkout has, at the places where it is imported from."""
    places = {
        "ollama_proxy": "ollama_proxy",
        "backends": "ollama_proxy/backends",
        "cloud-init": "ollama_proxy/cloud_init",
    }
    listed = run("git", "ls-files", "-co", "--exclude-standard", *places, cwd=ROOT)
    found = set()
    for line in listed.splitlines():
        top, _, rest = line.partition("/")
        if rest and not (ROOT / line).is_symlink() and (ROOT / line).is_file():
            found.add(f"{places[top]}/{rest}")
    return found


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in names if ".dist-info/" in name}

    assert names - metadata == expected_files()
    assert {name.split("/")[0] for name in names - metadata} == {"ollama_proxy"}
    assert "ollama_proxy/py.typed" in names


def test_the_wheel_carries_its_licence_and_names_it(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel)
    licence = next(n for n in files.namelist() if n.endswith("/licenses/LICENSE"))
    metadata = files.read(f"{licence.partition('/')[0]}/METADATA").decode()
    text = (ROOT / "LICENSE").read_text("utf-8")

    assert files.read(licence).decode() == text
    assert "Apache License\n                           Version 2.0," in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nLicense-File: LICENSE\n" in metadata


def test_the_wheel_made_from_the_sdist_is_the_same(wheel: Path, tmp_path: Path) -> None:
    build = (sys.executable, "-m", "hatchling", "build")
    run(*build, "--target", "sdist", "--directory", tmp_path, cwd=ROOT)
    sdist = next(tmp_path.glob("*.tar.gz"))
    run("tar", "xf", sdist, cwd=tmp_path)
    folder = tmp_path / sdist.name.removesuffix(".tar.gz")
    run(*build, "--target", "wheel", "--directory", tmp_path, cwd=folder)
    again = next(tmp_path.glob("*.whl"))

    assert set(zipfile.ZipFile(again).namelist()) == set(
        zipfile.ZipFile(wheel).namelist()
    )


def test_an_installed_wheel_runs_and_finds_its_templates(
    wheel: Path, tmp_path: Path
) -> None:
    """In a venv of its own; the dependencies are those of this one, by a path file."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps")
    run(*install, "--no-index", wheel, cwd=tmp_path)
    dependencies = Path(pytest.__file__).parents[1]
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    said = run(tmp_path / "venv" / "bin" / "ollama-proxy", "--version", cwd=tmp_path)
    code = (
        "import ollama_proxy, ollama_proxy.fleet.templates as b;"
        "print(ollama_proxy.__file__);"
        "print(b.ollama_environment(host='h', port=1)['OLLAMA_HOST'])\n"
        "from ollama_proxy.server.page.login_page import login_page\n"
        "print(login_page().body.count(b'<form'))"
    )
    where, host, forms = run(python, "-c", code, cwd=tmp_path).splitlines()

    assert said == f"ollama-proxy {__version__}\n"
    assert where.startswith(str(site))
    assert host == "h:1"
    assert forms == "1"


def test_the_locks_name_no_registry_and_pin_every_file() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        text = lock.read_text()

        assert "://" not in text
        assert text.count("==") <= text.count("--hash=sha256:")


def locked(lock: str) -> dict[str, int]:
    """Return the packages of a lock, and how many files each has."""
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    entries = re.findall(r"^(\S+==\S+) .*\n((?: .*\n)+)", text, flags=re.MULTILINE)
    return {name: files.count("--hash=sha256:") for name, files in entries}


def test_what_has_no_wheel_is_built_with_tools_that_are_locked() -> None:
    """A package has one file if it is a source alone, whose tools pip would fetch."""
    sources = [name for name, files in locked("run").items() if files == 1]
    step = re.compile(
        r"--no-build-isolation[^\n]*(\\\n[^\n]*)?requirements/source.lock"
    )

    assert sources == list(locked("source"))
    for recipe in ("Makefile", "Dockerfile"):
        text = (ROOT / recipe).read_text()
        step_at = step.search(text)
        assert step_at is not None
        assert text.index("requirement requirements/build.lock") < step_at.start()
        assert step_at.end() < text.rindex("requirement requirements/run.lock")
