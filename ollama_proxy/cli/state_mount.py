"""Tell from its mounts whether a container's state folder outlives the container. Pure.

The image declares a volume for the folder, so a container without a given volume gets
an anonymous one, which the next container does not get. Then the owner id is lost, and
nothing stops what still runs in a cloud.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import PurePosixPath
from typing import NamedTuple

IMAGE_MARK = "CONTAINER_IMAGE"
"""The variable by which the image identifies itself: see the Dockerfile."""

_ANONYMOUS = re.compile(r"/volumes/[0-9a-f]{64}/_data\Z")
_WITH_THE_POD = "/volumes/kubernetes.io~empty-dir/"
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_OCTAL = re.compile(r"\\([0-7]{3})")
_ROOT = PurePosixPath("/")


class Lasting(StrEnum):
    """Says whether a folder survives the removal of its container."""

    KEPT = "kept"
    ANONYMOUS = "an anonymous volume"
    WITH_THE_POD = "an emptyDir, which ends with its pod"
    IN_MEMORY = "kept in memory"
    UNMOUNTED = "no volume, but part of the container"


class Mount(NamedTuple):
    """Holds one line of ``/proc/self/mountinfo``; ``root`` is its place on its disk."""

    root: str
    point: PurePosixPath
    file_system: str


def read_mounts(mountinfo: str) -> list[Mount]:
    """Return the mounts of ``/proc/self/mountinfo``, as proc(5) describes it.

    Spaces, tabs, newlines and backslashes in paths are octal escapes. Malformed lines
    are skipped.
    """
    found = []
    for line in mountinfo.split("\n"):
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")[0]
        if dash and len(fields) >= 6 and kind:  # noqa: PLR2004 - optional ones follow
            point = PurePosixPath(_unescaped(fields[4]))
            found.append(Mount(_unescaped(fields[3]), point, kind))
    return found


def lasting(mountinfo: str, folder: PurePosixPath) -> Lasting:
    """Say whether an absolute folder survives its container; symbolic links resolved.

    The innermost mount counts, and of several mounts at one place the last, which hides
    the others. If there are no mounts to read, the folder counts as kept.
    """
    holding = [one for one in read_mounts(mountinfo) if _holds(one.point, folder)]
    if not holding:
        return Lasting.KEPT
    depth = max(len(one.point.parts) for one in holding)
    mount = [one for one in holding if len(one.point.parts) == depth][-1]
    if mount.point == _ROOT:
        return Lasting.UNMOUNTED
    if mount.file_system in _IN_MEMORY:
        return Lasting.IN_MEMORY
    if _ANONYMOUS.search(mount.root):
        return Lasting.ANONYMOUS
    return Lasting.WITH_THE_POD if _WITH_THE_POD in mount.root else Lasting.KEPT


def passing_words(
    env: Mapping[str, str], mountinfo: str, folder: PurePosixPath
) -> str | None:
    """Return a warning if this is our image and its state goes with the container."""
    if env.get(IMAGE_MARK) != "ollama-proxy":
        return None
    found = lasting(mountinfo, folder)
    if found is Lasting.KEPT:
        return None
    return (
        f"the state folder {str(folder)!r} is {found.value}: the next container begins"
        " without it, and does not know what this one left running in a cloud; give it"
        f" a volume with a name: `docker run -v ollama-proxy:{folder} …`"
    )


def _holds(point: PurePosixPath, folder: PurePosixPath) -> bool:
    return point == folder or point in folder.parents


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
