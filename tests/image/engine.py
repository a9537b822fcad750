"""Builds images with buildah, in a store of its own that is gone afterwards."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from tests.image import needs

_PLENTY = 6 << 30  # four times what a run takes
_PIP = "/etc/xdg/pip"  # where pip looks for settings, and a folder of the stand-in
_FILES = ("cert", "client-cert")
_WAY_OUT = {*_FILES, "index-url", "extra-index-url", "trusted-host", "proxy", "timeout"}


class Engine:
    """The images of one run, below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pip = folder / "pip"
        self._clear()
        folder.mkdir()
        _keep_in_memory(folder)
        self._command = (
            "buildah",
            f"--root={folder / 'storage'}",
            f"--runroot={folder / 'run'}",
            f"--storage-driver={_driver(folder)}",
        )
        self._pip.mkdir()
        _write_pip_settings(self._pip)

    def close(self) -> None:
        """Remove every image and container."""
        self._clear()

    def _clear(self) -> None:
        """Unmount and remove all that is below the folder; buildah takes a minute."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        mounted = [line.split()[4] for line in lines]
        below = [path for path in mounted if f"{path}/".startswith(f"{self.folder}/")]
        for path in reversed(below):
            needs.run("umount", path)
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def buildah(self, *arguments: str | Path) -> str:
        """Return what a command of buildah prints."""
        return needs.run(*self._command, *arguments, timeout_s=600)

    def stand_in(self, name: str, dockerfile: str, *files: Path) -> None:
        """Make an image under the name that a FROM line has."""
        context = self.folder / "context"
        context.mkdir()
        for file in files:
            shutil.copy(file, context)
        (context / "Dockerfile").write_text(dockerfile)
        self.build(context, name)
        shutil.rmtree(context)

    def build(self, context: Path, tag: str, **arguments: str) -> str:
        """Build every stage of a Dockerfile as it stands; return buildah's log.

        The machine's pip settings are present during the build, and not in the image.
        """
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        done = subprocess.run(
            [
                *self._command,
                "bud",
                "--isolation=chroot",
                "--format=docker",  # the other one has no HEALTHCHECK
                "--pull-never",
                "--layers",
                f"--volume={self._pip}:{_PIP}:ro",
                *given,
                f"--tag={tag}",
                str(context),
            ],
            env=needs.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        if done.returncode:
            raise BuildError(done.stdout[-6000:])
        return done.stdout

    def config(self, tag: str) -> dict[str, Any]:
        """Return what an image says of its own start."""
        told = json.loads(self.buildah("inspect", "--type=image", tag))
        config: dict[str, Any] = told["Docker"]["config"]
        return config

    def unpack(self, tag: str) -> Path:
        """Return the root of a fresh container of an image."""
        name = self.buildah("from", "--pull-never", tag).strip()
        return Path(self.buildah("mount", name).strip())


class BuildError(Exception):
    """An image could not be built; the text is the end of the log."""


def _keep_in_memory(folder: Path) -> None:
    """Lay memory on a folder if there is plenty: it all is thrown away anyway."""
    if psutil.virtual_memory().available > _PLENTY:
        needs.run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", folder)


def _driver(folder: Path) -> str:
    """Return the overlay driver: the kernel's, or else copies.

    A folder on a container's own overlay can't have another overlay on it.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        parts = [Path(name, part) for part in ("lower", "upper", "work", "merged")]
        for part in parts:
            part.mkdir()
        lower, upper, work, merged = parts
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        mount = ("mount", "-t", "overlay", "-o", options, "overlay", str(merged))
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return "vfs"
        needs.run("umount", merged)
        return "overlay"


def _write_pip_settings(folder: Path) -> None:
    """Write how this machine's pip reaches its registry, with the certificates."""
    command = (sys.executable, "-m", "pip", "config", "list")
    found: dict[str, str] = {}
    for line in needs.run(*command).splitlines():  # the environment's come first
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in _WAY_OUT:
            found.setdefault(key, value.strip("'"))
    for key in found.keys() & _FILES:
        shutil.copy(found[key], folder / key)
        found[key] = f"{_PIP}/{key}"
    lines = [f"{key} = {value}\n" for key, value in found.items()]
    (folder / "pip.conf").write_text("".join(["[global]\n", *lines]))
