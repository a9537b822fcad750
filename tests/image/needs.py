"""What it takes to build and run images without a container engine, and where it is."""

import os
import shutil
import subprocess
from pathlib import Path

TOOLS = ("buildah", "crun", "debootstrap", "caddy", "nsenter", "unshare")


def missing() -> str:
    """Return why no image can be built here; empty if it can."""
    if os.name != "posix" or os.getuid() != 0:
        return "it needs root, who alone can mount and change roots"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"there is no {', '.join(absent)}; on Debian: apt-get install"
    namespaces = ("unshare", "--mount", "--net", "--pid", "--fork", "true")
    if subprocess.run(namespaces, capture_output=True, check=False).returncode:
        return "this root may not mount, or not make a network of its own"
    if not mirror():
        return "apt knows no mirror of Debian; set IMAGE_TEST_MIRROR to its URL"
    return ""


def mirror() -> str:
    """Return the mirror of Debian that this machine's own apt is set to."""
    if given := os.environ.get("IMAGE_TEST_MIRROR"):
        return given
    if shutil.which("apt-get") is None:
        return ""
    told = run(
        "apt-get",
        "indextargets",
        "--format=$(ORIGIN) $(LABEL) $(REPO_URI)",
        "Created-By: Packages",
    )
    lines = [line.split() for line in told.splitlines()]
    return next((line[2] for line in lines if line[:2] == ["Debian"] * 2), "")


def environment() -> dict[str, str]:
    """Return this process' environment, with the way out that apt is set to."""
    if shutil.which("apt-config") is None:
        return dict(os.environ)
    told = run("apt-config", "shell", "PROXY", "Acquire::http::Proxy")
    proxy = told.partition("=")[2].strip().strip("'")
    return os.environ | ({"http_proxy": proxy} if proxy else {})


def cache() -> Path:
    """Return the folder, outside the tree, where what takes long is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "ollama-proxy-image-test"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(*command: str | Path, timeout_s: float = 300, **env: str) -> str:
    """Return what a command prints; its complaints are the error if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    told = f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    assert done.returncode == 0, told
    return done.stdout
