"""The installation of an instance on Exoscale, with a real apt and dpkg."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ollama_proxy.backends.exoscale.drivers import DriverRule
from ollama_proxy.backends.exoscale.userdata import Installation
from tests.image import needs
from tests.image.base import base_archive
from tests.image.exoscale_root import (
    GUARD,
    KERNEL,
    NEWER,
    Package,
    Root,
    driver,
    headers,
)

GPU = Installation(
    "0.32.15", DriverRule(("server", "server-open"), least=550), models=("tiny",)
)
WHOLE = [
    *GUARD,
    *driver("570-server", modules_of=[KERNEL]),
    *driver("580-server", modules_of=[KERNEL]),
    headers(),
]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Unpack the stand-in for Ubuntu, once, in memory: it is thrown away anyway."""
    folder = tmp_path_factory.mktemp("guest")
    needs.run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", folder)
    try:
        (folder / "system").mkdir()
        archive = base_archive(folder)
        needs.run("tar", "-C", folder / "system", "-xf", archive)
        yield folder / "system"
    finally:
        needs.run("umount", folder)


@pytest.fixture
def root(system: Path) -> Iterator[Root]:
    """Have a copy for each test."""
    folder = system.with_name("root")
    needs.run("cp", "-a", system, folder)
    yield Root(folder)
    shutil.rmtree(folder)


def test_an_instance_is_set_up_from_a_whole_archive(root: Root) -> None:
    root.prepare(GPU, WHOLE)
    root.boot()

    assert root.told("stage") == "ready", root.log
    assert root.told("driver") == "580-server 580.95.05"
    assert f"linux-modules-nvidia-580-server-{KERNEL}" in root.installed
    assert (root.folder / "opt/ollama/lib/ollama/cuda_v13").is_dir()
    assert not (root.folder / "opt/ollama/lib/ollama/vulkan").exists()


@pytest.mark.parametrize("modules_of", [[], [NEWER], [f"!{KERNEL}"]])
def test_modules_that_are_missing_or_of_another_version_are_built(
    root: Root, modules_of: list[str]
) -> None:
    newer = driver("580-server", modules_of=modules_of)
    older = driver("570-server", modules_of=[KERNEL])
    root.prepare(GPU, [*GUARD, *older, *newer, headers()])
    root.boot()

    assert root.told("stage") == "ready", root.log
    assert root.told("driver") == "580-server 580.95.05"
    assert "nvidia-dkms-580-server" in root.installed


@pytest.mark.parametrize("builds", [True, False])
def test_an_older_branch_serves_where_the_newest_can_not_be_built(
    root: Root, *, builds: bool
) -> None:
    newer = driver("580-server", builds=builds)
    older = driver("570-server", modules_of=[KERNEL])
    tools = [] if builds else [headers()]
    root.prepare(GPU, [*GUARD, *older, *newer, *tools])
    root.boot()

    assert root.told("stage") == "ready", root.log
    assert root.told("driver") == "570-server 570.95.05"
    assert not {name for name in root.installed if "580" in name}


def test_modules_for_another_kernel_alone_take_one_reboot(root: Root) -> None:
    flavour = [
        Package("linux-image-generic"),
        Package(
            "linux-modules-nvidia-580-server-generic",
            depends=f"linux-modules-nvidia-580-server-{NEWER}",
        ),
    ]
    root.prepare(GPU, [*GUARD, *driver("580-server", modules_of=[NEWER]), *flavour])
    first = root.boot()
    root.boot()

    assert not first
    assert root.told("stage") == "ready", root.log
    assert root.told("driver") == "580-server 580.95.05"
    assert "systemctl reboot" not in root.calls


def test_what_no_archive_has_is_said_within_seconds(root: Root) -> None:
    root.prepare(GPU, [*GUARD, *driver("535-server")])
    root.boot()

    assert root.told("stage") == "failed:driver"
    assert "apt has no driver of the kinds server server-open" in root.told("report")
    assert len(root.told("report").splitlines()) <= 40


@pytest.mark.parametrize(
    "lock",
    [
        "/var/lib/apt/lists/lock",
        "/var/lib/dpkg/lock-frontend",
        "/var/cache/apt/archives/lock",
    ],
)
def test_a_lock_that_is_held_is_waited_for(root: Root, lock: str) -> None:
    hold = f"f=open('{lock}','w'); fcntl.lockf(f,fcntl.LOCK_EX); time.sleep(3)"
    root.prepare(GPU, WHOLE)
    root.boot(before=f'python3 -c "import fcntl,time; {hold}"')

    assert root.told("stage") == "ready", root.log


@pytest.mark.parametrize(
    "moment",
    [
        "caddy.preinst",
        "caddy.postinst",
        "nvidia-utils-580-server.preinst",
        "nvidia-headless-no-dkms-580-server.postinst",
        f"linux-modules-nvidia-580-server-{KERNEL}.preinst",
        f"linux-modules-nvidia-580-server-{KERNEL}.postinst",
        "curl.ollama-linux-amd64.tar.zst",
        "curl.version",
    ],
)
def test_a_reboot_at_any_moment_is_gone_on_after(root: Root, moment: str) -> None:
    root.prepare(GPU, WHOLE)
    first = root.boot(stop_at=moment)
    root.boot()

    assert not first, root.log
    assert "systemctl start --no-block ollama-proxy-install.service" in root.calls
    assert root.told("stage") == "ready", root.log
    assert root.told("driver") == "580-server 580.95.05"


@pytest.mark.parametrize("folder", ["/usr/lib/modules", "/opt"])
def test_a_disk_that_is_full_is_told_by_that_word(root: Root, folder: str) -> None:
    root.prepare(GPU, WHOLE)
    root.small = folder
    root.boot()

    assert root.told("stage") == "failed:disk", root.log
    assert "No space left on device" in root.told("report")
