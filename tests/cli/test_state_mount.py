"""Whether the state outlives its container: mounts as docker and podman make them."""

from pathlib import Path, PurePosixPath

import pytest

from ollama_proxy.cli.state_mount import Lasting, lasting, passing_words, read_mounts
from tests.black_box import proxy_process

HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
STATE = PurePosixPath("/state")

OVERLAY = (
    "1023 881 0:91 / / rw,relatime master:313 - overlay overlay rw,lowerdir="
    "/var/lib/docker/overlay2/l/ABC:/var/lib/docker/overlay2/l/DEF,upperdir="
    "/var/lib/docker/overlay2/0c/diff,workdir=/var/lib/docker/overlay2/0c/work\n"
    "1024 1023 0:94 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n"
    "1025 1023 0:95 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755,inode64\n"
    "1026 1025 0:96 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5\n"
    "1027 1023 0:97 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro\n"
    "1030 1023 259:2 /var/lib/docker/containers/5f1d/resolv.conf /etc/resolv.conf"
    " rw,relatime - ext4 /dev/nvme0n1p2 rw,errors=remount-ro\n"
)
PODMAN = (
    "712 611 0:58 / / rw,relatime - overlay overlay rw,lowerdir=/home/ann/.local/share/"
    "containers/storage/overlay/l/QWE,upperdir=/x/diff,workdir=/x/work,userxattr\n"
    "713 712 0:62 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n"
    "720 712 0:53 /containers/overlay-containers/8e/userdata/hosts /etc/hosts"
    " rw,nosuid,nodev,relatime - tmpfs tmpfs rw,size=1631484k,uid=1000\n"
)


def at_state(root: str, kind: str = "ext4", options: str = " master:1") -> str:
    return (
        f"1040 1023 259:2 {root} /state rw,relatime{options} - {kind}"
        " /dev/nvme0n1p2 rw,errors=remount-ro\n"
    )


DOCKER_VOLUME = "/var/lib/docker/volumes"
PODMAN_VOLUME = "/ann/.local/share/containers/storage/volumes"


@pytest.mark.parametrize(
    ("mountinfo", "becomes"),
    [
        (OVERLAY, Lasting.UNMOUNTED),
        (PODMAN, Lasting.UNMOUNTED),
        (OVERLAY + at_state(f"{DOCKER_VOLUME}/{HEX}/_data"), Lasting.ANONYMOUS),
        (PODMAN + at_state(f"{PODMAN_VOLUME}/{HEX}/_data"), Lasting.ANONYMOUS),
        # /var/lib/docker on a partition of its own, and on a subvolume of btrfs
        (OVERLAY + at_state(f"/volumes/{HEX}/_data"), Lasting.ANONYMOUS),
        (
            OVERLAY + at_state(f"/@{DOCKER_VOLUME}/{HEX}/_data", "btrfs"),
            Lasting.ANONYMOUS,
        ),
        (
            OVERLAY + at_state(f"{DOCKER_VOLUME}/{HEX}/_data", options=""),
            Lasting.ANONYMOUS,
        ),
        (OVERLAY + at_state(f"{DOCKER_VOLUME}/ollama-proxy/_data"), Lasting.KEPT),
        (PODMAN + at_state(f"{PODMAN_VOLUME}/ollama-proxy/_data"), Lasting.KEPT),
        (OVERLAY + at_state(f"{DOCKER_VOLUME}/{HEX[1:]}/_data"), Lasting.KEPT),
        (OVERLAY + at_state("/srv/ollama-proxy"), Lasting.KEPT),
        (OVERLAY + at_state(r"/srv/my\040state"), Lasting.KEPT),
        (OVERLAY + at_state(f"/srv/volumes/{HEX}/_data/inside"), Lasting.KEPT),
        (OVERLAY + at_state("/", "nfs4"), Lasting.KEPT),
        (OVERLAY + at_state("/", "tmpfs"), Lasting.IN_MEMORY),
        (
            OVERLAY
            + at_state("/kubelet/pods/6f/volumes/kubernetes.io~empty-dir/state"),
            Lasting.WITH_THE_POD,
        ),
        ("", Lasting.KEPT),
        ("no such lines\n1 2 3\n", Lasting.KEPT),
    ],
)
def test_the_innermost_mount_says_what_becomes_of_the_state(
    mountinfo: str, becomes: Lasting
) -> None:
    assert lasting(mountinfo, STATE) is becomes


def test_of_two_mounts_at_one_place_the_last_counts() -> None:
    hidden = at_state(f"{DOCKER_VOLUME}/{HEX}/_data")

    assert lasting(OVERLAY + hidden + at_state("/srv/x"), STATE) is Lasting.KEPT
    assert lasting(OVERLAY + at_state("/srv/x") + hidden, STATE) is Lasting.ANONYMOUS


def test_a_folder_within_a_volume_is_as_lasting_as_the_volume() -> None:
    named = OVERLAY + at_state(f"{DOCKER_VOLUME}/named/_data")

    assert lasting(named, STATE / "proxy") is Lasting.KEPT
    assert lasting(named, PurePosixPath("/state2")) is Lasting.UNMOUNTED


def test_escaped_places_are_read_as_what_they_are() -> None:
    line = at_state(f"{DOCKER_VOLUME}/{HEX}/_data").replace("/state", r"/my\040\134st")

    assert read_mounts(line)[0].point == PurePosixPath("/my \\st")
    assert lasting(OVERLAY + line, PurePosixPath("/my \\st")) is Lasting.ANONYMOUS


def test_only_our_image_warns_and_the_warning_can_be_typed() -> None:
    image = {"CONTAINER_IMAGE": "ollama-proxy"}
    anonymous = OVERLAY + at_state(f"{DOCKER_VOLUME}/{HEX}/_data")
    named = OVERLAY + at_state(f"{DOCKER_VOLUME}/named/_data")

    assert passing_words({}, OVERLAY, STATE) is None
    assert passing_words(image, named, STATE) is None
    told = passing_words(image, anonymous, STATE)
    assert told is not None
    assert "an anonymous volume" in told
    assert "-v ollama-proxy:/state" in told


def test_a_proxy_in_our_image_says_it_at_the_start_and_another_does_not(
    tmp_path: Path,
) -> None:
    image = {"CONTAINER_IMAGE": "ollama-proxy"}
    here = Path("/proc/self/mountinfo").read_text()
    if passing_words(image, here, PurePosixPath(tmp_path.resolve())) is None:
        pytest.skip("the folder of this test is on a disk of its own")
    with proxy_process(tmp_path / "in", CONTAINER_IMAGE="ollama-proxy") as proxy:
        inside = proxy.log.read_text()
    with proxy_process(tmp_path / "out") as proxy:
        outside = proxy.log.read_text()

    assert "Warning: the state folder" in inside
    assert '"state.passing"' in inside
    assert "state.passing" not in outside
