"""A root of Debian in which Exoscale's guest is installed, from an archive of our own.

Real: the shell, apt, dpkg, tar and the file system. Simulated: the GPU, the kernel,
systemd, the network and a reboot, which kills all processes at once and repeats the
boot. No process leaves the chroot.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ollama_proxy.backends.exoscale.userdata import Installation
from tests.image import needs

SCRIPTS = Path(__file__).parents[2] / "cloud-init" / "exoscale"
KERNEL = "6.8.0-58-generic"
NEWER = "6.8.0-99-generic"
ARCHIVE = "ollama-linux-amd64.tar.zst"

STOP = """
if [ "$(cat /stop-at 2> /dev/null)" = "{name}" ]; then
    rm /stop-at; touch /stopped; sleep 60
fi
"""
"""Where a reboot may come: the test waits for the file, then kills everything."""

STUBS = {
    "uname": "cat /kernel",
    "modprobe": 'ls "/usr/lib/modules/$(cat /kernel)/nvidia.ko"',
    "systemctl": (
        'echo "systemctl $*" >> /calls\n'
        '[ "$1" != reboot ] || { echo ' + NEWER + " > /kernel; touch /stopped; }"
    ),
    # The URL is the last word; a file of its name in /web is the answer.
    "curl": """
while [ "$#" -gt 0 ]; do [ "$1" != -o ] || out="$2"; url="${1%%[?]*}"; shift; done
echo "$url" >> /fetched
"""
    + STOP.format(name="curl.${url##*/}")
    + """
case "$url" in http://127.0.0.1*) exit 0 ;; esac
cp "/web/${url##*/}" "$out" && exit 0
echo 'curl: (22) The requested URL returned error: 404'
exit 22
""",
}


@dataclass(frozen=True)
class Package:
    """A package of the archive: one file, what it needs, and what its scripts do."""

    name: str
    file: str = ""
    content: bytes = b"#!/bin/sh\n"
    depends: str = ""
    postinst: str = ""
    version: str = "1"

    def build(self, folder: Path) -> Path:
        """Return the package's file, made in a folder."""
        tree = folder / f"{self.name}.tree"
        (tree / "DEBIAN").mkdir(parents=True)
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": "all",
            "Maintainer": "nobody <nobody@example.org>",
            "Depends": self.depends,
            "Description": "played",
        }
        text = "".join(f"{key}: {value}\n" for key, value in fields.items() if value)
        (tree / "DEBIAN/control").write_text(text)
        for script, then in (("preinst", ""), ("postinst", self.postinst)):
            path = tree / "DEBIAN" / script
            stop = STOP.format(name=f"{self.name}.{script}")
            path.write_text(f"#!/bin/sh\nset -e\n{stop}\n{then}\n")
            path.chmod(0o755)
        if self.file:
            path = tree / self.file
            path.parent.mkdir(parents=True)
            path.write_bytes(self.content)
            path.chmod(0o755)
        made = folder / f"{self.name}.deb"
        needs.run("dpkg-deb", "--build", "-Znone", "--root-owner-group", tree, made)
        shutil.rmtree(tree)
        return made


def driver(
    branch: str, *, modules_of: Iterable[str] = (), builds: bool = True
) -> list[Package]:
    """Return a branch as Ubuntu splits it, with modules for some kernels.

    A kernel with a leading ``!`` has modules of another version than the rest.
    """
    utils = f"nvidia-utils-{branch.removesuffix('-open')}"
    version = f"{branch.partition('-')[0]}.95.05"
    smi = f'#!/bin/sh\n[ -z "$*" ] || echo {version}\n'.encode()
    compile_it = (
        'kernel="$(cat /kernel)"\n'
        '[ -e "/usr/src/linux-headers-$kernel/made" ] || exit 1\n'
        + (
            'touch "/usr/lib/modules/$kernel/nvidia.ko"'
            if builds
            else "echo no; exit 10"
        )
    )
    made = [
        Package(utils, "usr/bin/nvidia-smi", smi),
        Package(f"nvidia-headless-no-dkms-{branch}"),
        Package(
            f"nvidia-dkms-{branch}",
            postinst=f"mkdir -p /usr/lib/modules/$(cat /kernel)\n{compile_it}",
        ),
        Package(f"nvidia-headless-{branch}", depends=f"nvidia-dkms-{branch}"),
    ]
    for kernel in modules_of:
        name = kernel.removeprefix("!")
        needed = (
            f"nvidia-headless-no-dkms-{branch} (= {'0' if name != kernel else '1'})"
        )
        ko = f"usr/lib/modules/{name}/nvidia.ko"
        made.append(
            Package(
                f"linux-modules-nvidia-{branch}-{name}", ko, b"x" * (4 << 20), needed
            )
        )
    return made


def headers(kernel: str = KERNEL) -> Package:
    """Return what it takes to build a module for a kernel."""
    return Package(f"linux-headers-{kernel}", f"usr/src/linux-headers-{kernel}/made")


GUARD = [
    Package("caddy", "usr/bin/caddy"),
    Package("curl"),
    Package("zstd", "usr/bin/zstd", b"#!/bin/sh\nexec cat\n"),
    Package("ca-certificates", version="99999999"),
]


@dataclass
class Root:
    """One instance's disk. ``folder`` is its root; ``boots`` counts."""

    folder: Path
    small: str = ""
    """A folder of it that has room for 1 MiB."""
    log: str = ""
    boots: int = 0
    calls: list[str] = field(default_factory=list)

    def prepare(self, installation: Installation, packages: list[Package]) -> None:
        """Write what cloud-init writes, the archive and the stubs."""
        root = self.folder
        config = root / "etc/ollama-proxy"
        config.mkdir(parents=True)
        (config / "install.env").write_text(installation.variables())
        for name in ("Caddyfile", "server.crt", "server.key", "link.env", "ollama.env"):
            (config / name).write_text("x\n")
        (root / "kernel").write_text(f"{KERNEL}\n")
        (root / "usr/lib/modules" / KERNEL).mkdir(parents=True, exist_ok=True)
        with (root / "etc/passwd").open("a") as file:
            file.write("caddy:x:950:950::/:/bin/false\n")
        with (root / "etc/group").open("a") as file:
            file.write("caddy:x:950:\n")
        stubs = root / "stubs"
        stubs.mkdir()
        for name, text in STUBS.items():
            (stubs / name).write_text(f"#!/bin/sh\n{text}\n")
            (stubs / name).chmod(0o755)
        for script in ("arm.sh", "install.sh", "dead-man.sh", "heartbeat.sh"):
            shutil.copy(SCRIPTS / script, root / script)
        self._publish(packages)
        self._release()

    def _publish(self, packages: list[Package]) -> None:
        """Make the archive, and have it in place of Debian's."""
        folder = self.folder / "archive"
        folder.mkdir()
        index = []
        for package in packages:
            made = package.build(folder)
            data = made.read_bytes()
            control = needs.run("dpkg-deb", "--field", made).strip()
            digest = hashlib.sha256(data).hexdigest()
            index.append(
                f"{control}\nFilename: ./{made.name}\n"
                f"Size: {len(data)}\nSHA256: {digest}\n"
            )
        text = "\n".join(index).encode()
        (folder / "Packages").write_bytes(text)
        digest = hashlib.sha256(text).hexdigest()
        (folder / "Release").write_text(
            f"Suite: played\nSHA256:\n {digest} {len(text)} Packages\n"
        )
        apt = self.folder / "etc/apt"
        shutil.rmtree(apt / "sources.list.d", ignore_errors=True)
        (apt / "sources.list.d").mkdir()
        (apt / "sources.list").write_text("deb [trusted=yes] file:/archive ./\n")
        (apt / "apt.conf.d/90played").write_text(
            'APT::Sandbox::User "root"; Dpkg::Options:: "--force-unsafe-io";\n'
        )

    def _release(self) -> None:
        web, tree = self.folder / "web", self.folder / "tree"
        for name in (
            "bin/ollama",
            "lib/ollama/cuda_v13/lib.so",
            "lib/ollama/vulkan/v.so",
        ):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(b"#!/bin/sh\n" + b"#" * (2 << 20))
            (tree / name).chmod(0o755)
        web.mkdir()
        needs.run("tar", "-C", tree, "-cf", web / ARCHIVE, ".")
        shutil.rmtree(tree)
        digest = hashlib.sha256((web / ARCHIVE).read_bytes()).hexdigest()
        (web / "sha256sum.txt").write_text(f"{digest}  ./{ARCHIVE}\n")

    def boot(self, *, stop_at: str = "", before: str = "") -> bool:
        """Boot once, by bootcmd and then the unit; False if it rebooted.

        ``before``: a command that is started first, beside the installation.
        """
        root = self.folder
        (root / "stopped").unlink(missing_ok=True)
        (root / "calls").unlink(missing_ok=True)
        (root / "stop-at").write_text(stop_at)
        self.boots += 1
        inside = (
            "mount -t tmpfs tmpfs /run\n"
            f"{f'mount -t tmpfs -o size=1m tmpfs {self.small}' if self.small else ''}\n"
            "sh /arm.sh 1200 a b\n"
            f"{f'({before}) &' if before else ''}\n"
            "sh /install.sh\n"
            "status=$?; cp -r /run/ollama-proxy /told; exit $status"
        )
        shutil.rmtree(root / "told", ignore_errors=True)
        script = (
            f'mount --rbind /dev "{root}/dev"; exec chroot "{root}" /bin/sh -c "$1"'
        )
        with (root / "log").open("w") as log:
            process = subprocess.Popen(
                (
                    *("unshare", "--mount", "--net", "--pid", "--fork"),
                    *("--kill-child", f"--mount-proc={root / 'proc'}"),
                    *("sh", "-c", script, "boot", inside),
                ),
                env={
                    "PATH": "/stubs:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "RETRY_PAUSE": "0.05",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            rebooted = self._watch(process)
        self.log = (root / "log").read_text("utf-8", "replace")
        calls = root / "calls"
        self.calls = calls.read_text().splitlines() if calls.exists() else []
        return not rebooted

    def _watch(self, process: "subprocess.Popen[bytes]") -> bool:
        """Wait for the end, which a reboot brings at once; tell whether one did."""
        deadline = time.perf_counter() + 120
        while process.poll() is None:
            rebooted = (self.folder / "stopped").exists()
            if rebooted or time.perf_counter() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                assert rebooted, f"it hangs: {(self.folder / 'log').read_text()}"
                return True
            time.sleep(0.01)
        return False

    def told(self, name: str) -> str:
        """Return what the last complete boot reported to the guard."""
        path = self.folder / "told" / name
        return path.read_text().strip() if path.exists() else ""

    @property
    def installed(self) -> set[str]:
        """The packages that are there, whole."""
        text = needs.run(
            *("chroot", self.folder, "dpkg-query", "-W"),
            "-f=${db:Status-Abbrev} ${Package}\n",
        )
        return {line.split()[1] for line in text.splitlines() if line[:2] == "ii"}
