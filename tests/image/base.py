"""The stand-in for Debian with Python, which the images are built from here.

No registry of images is used. Debian's own packages make a system as small as the
images' (``debootstrap --variant=minbase``) with the Python of that release, which must
be as new as the Dockerfile's. It is built once, and kept outside the tree.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

from tests.image import needs

SUITE = os.environ.get("IMAGE_TEST_SUITE", "trixie")  # the first with Python 3.13
PYTHON = (3, 13)
_PACKAGES = "ca-certificates,netbase,python3,python3-venv,python-is-python3,tzdata"
_KEPT_S = 30 * 86400.0
_LEFT_OUT = (
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./usr/share/doc/*",
    "./usr/share/locale/*",
    "./usr/share/man/*",
    "./dev/*",
)


def base_archive(workplace: Path) -> Path:
    """Return the archive of the system, made if there is none or it is old."""
    archive = needs.cache() / f"base-{SUITE}-1.tar.gz"
    if archive.exists() and time.time() - archive.stat().st_mtime < _KEPT_S:  # noqa: TID251 - the age of a file
        return archive
    folder = Path(tempfile.mkdtemp(prefix="base-", dir=workplace))
    try:
        fresh = archive.with_suffix(".new")
        shutil.copy(_made(folder), fresh)
        fresh.rename(archive)
    finally:
        shutil.rmtree(folder)
    return archive


def _made(folder: Path) -> Path:
    root = folder / "root"
    needs.run(
        "debootstrap",
        "--variant=minbase",
        f"--include={_PACKAGES}",
        SUITE,
        root,
        needs.mirror(),
        timeout_s=900,
        **needs.environment(),
        DPKG_FORCE="unsafe-io",  # it may be lost with the machine, so no fsync
    )
    (root / "etc/xdg/pip").mkdir(parents=True)  # where the machine's own pip.conf goes
    fresh = folder / "base.tar.gz"
    left_out = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
    gzip = "--use-compress-program=gzip -1"
    needs.run("tar", "-C", root, "-c", gzip, "-f", fresh, *left_out, ".")
    return fresh
