"""The shell parts of an instance, run with stubs on the PATH."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ollama_proxy.backends.exoscale.drivers import DriverRule
from ollama_proxy.backends.exoscale.userdata import Installation

SCRIPTS = Path(__file__).parents[3] / "cloud-init" / "exoscale"
STUBS = (
    "systemctl",
    "apt-get",
    "apt-cache",
    "dpkg",
    "dpkg-query",
    "useradd",
    "usermod",
    "getent",
    "docker",
    "curl",
    "zstd",
    "modprobe",
    "nvidia-smi",
    "nvidia-ctk",
    "caddy",
    "ollama",
    "poweroff",
    "install",
)
TOOLS = (
    *("awk", "cat", "chmod", "cp", "df", "env", "grep", "head", "ln", "mkdir", "mv"),
    *("rm", "sed", "seq", "sh", "sha256sum", "sleep", "sort", "tail", "tar"),
    *("timeout", "touch", "tr", "uname", "wc"),
)
RELEASE = os.uname().release
ARCHIVE = "ollama-linux-amd64.tar.zst"
# Takes the URL last, as our calls have it, and answers from a folder.
CURL = """
while [ "$#" -gt 0 ]; do [ "$1" != -o ] || out="$2"; url="${1%%[?]*}"; shift; done
[ "$out" = /dev/null ] || cp "$ROOT/web/${url##*/}" "$out"
"""


@dataclass(slots=True)
class Machine:
    """A folder that stands for an instance's root; stubs note how they were called."""

    root: Path

    @property
    def calls(self) -> list[str]:
        log = self.root / "calls"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ROOT": str(self.root),
            "PATH": f"{self.root / 'bin'}:{self.root / 'tools'}",
            "RETRY_PAUSE": "0",
            "PATIENCE_S": "0",
            "REBOOT_S": "0",
        }

    @property
    def stage(self) -> str:
        return (self.root / "run/ollama-proxy/stage").read_text().strip()

    def stub(self, name: str, then: str = "") -> None:
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> "$ROOT/calls"\n{then}\n')
        path.chmod(0o755)

    def without(self, *names: str) -> None:
        for name in names:
            (self.root / "bin" / name).unlink()

    def run(
        self, script: str, *arguments: str, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(SCRIPTS / script), *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def uptime(self, seconds: float) -> None:
        (self.root / "proc").mkdir(exist_ok=True)
        (self.root / "proc/uptime").write_text(f"{seconds:.2f} 1.00\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    (tmp_path / "tools").mkdir()
    for name in TOOLS:  # and nothing else that this machine may have, as Caddy
        (tmp_path / "tools" / name).symlink_to(str(shutil.which(name)))
    for name in STUBS:
        made.stub(name)
    made.uptime(10.0)
    armed = made.run(
        "arm.sh",
        "1200",
        (SCRIPTS / "dead-man.sh").read_text(),
        (SCRIPTS / "heartbeat.sh").read_text(),
    )
    assert armed.returncode == 0, armed.stderr
    return made


GPU = DriverRule(("server", "server-open"), least=550)
FIRST = "550-server 570-server 580-server 580-server-open 590 590-open"
"""Branches of an archive: those that are not for servers are of no interest."""


def configured(
    machine: Machine,
    driver: DriverRule | None = None,
    engine: str = "native",
    sha256: str = "",
    models: tuple[str, ...] = (),
) -> Machine:
    config = machine.root / "etc/ollama-proxy"
    installation = Installation("0.32.15", driver, engine, sha256, models)
    (config / "install.env").write_text(installation.variables())
    for name in ("Caddyfile", "server.crt", "server.key", "link.env", "ollama.env"):
        (config / name).write_text("x\n")
    return machine


def without_driver(machine: Machine, *, then: str = "", branches: str = FIRST) -> None:
    """Have a card whose module loads once apt has installed something."""
    machine.stub("modprobe", '[ -e "$ROOT/driver" ]')
    names = "".join(
        f"nvidia-headless-no-dkms-{branch}\\n" for branch in branches.split()
    )
    machine.stub("apt-cache", f"printf '{names}caddy\\n'")
    simulation = 'case "$*" in *" -s "*) exit 0 ;; esac'
    installs = '*"install "*nvidia-headless*) touch "$ROOT/driver" ;;'
    machine.stub("apt-get", f'{then}\n{simulation}\ncase "$*" in {installs} esac')


def on_the_web(machine: Machine, *, damaged: bool = False) -> str:
    """Put a release of Ollama where curl finds it; return its checksum."""
    tree = machine.root / "release"
    for name in ("bin/ollama", *(f"lib/ollama/{x}/lib.so" for x in LIBRARIES)):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("#!/bin/sh\n")
    web = machine.root / "web"
    web.mkdir()
    subprocess.run(["tar", "-C", tree, "-cf", web / ARCHIVE, "."], check=True)
    got = hashlib.sha256((web / ARCHIVE).read_bytes()).hexdigest()
    (web / "gpgkey").write_text("a key\n")
    (web / "sha256sum.txt").write_text(
        f"{'0' * 64}  ./ollama-linux-arm64.tar.zst\n{got}  ./{ARCHIVE}\n"
    )
    if damaged:
        with (web / ARCHIVE).open("ab") as file:
            file.write(b"x")
    machine.stub("curl", CURL)
    machine.stub("zstd", "exec cat")
    return got


LIBRARIES = ("cuda_v12", "cuda_v13", "vulkan", "rocm_v7")


def test_arming_waits_for_nothing_and_can_be_repeated(machine: Machine) -> None:
    started = "systemctl start --no-block ollama-proxy-dead-man.timer"
    again = machine.run("arm.sh", "1200", "a", "b")

    assert again.returncode == 0
    assert sum(call.startswith(started) for call in machine.calls) == 2
    assert machine.stage == "booting"
    for script in ("ollama-proxy-dead-man", "ollama-proxy-heartbeat"):
        assert os.access(machine.root / "usr/local/sbin" / script, os.X_OK)


def test_a_machine_that_hears_nothing_powers_itself_off(machine: Machine) -> None:
    powered_off = []
    for uptime in (30, 600, 1199, 1200):
        machine.uptime(uptime)
        machine.run("dead-man.sh")
        powered_off.append("systemctl poweroff" in machine.calls)

    assert powered_off == [False, False, False, True]


def test_heartbeats_keep_a_machine_up(machine: Machine) -> None:
    request = "POST /-/heartbeat HTTP/1.1\r\nHost: x\r\n\r\n"
    for uptime in range(60, 7200, 600):
        machine.uptime(uptime)
        answer = machine.run("heartbeat.sh", stdin=request)
        machine.uptime(uptime + 599)
        machine.run("dead-man.sh")

        assert answer.stdout.startswith("HTTP/1.1 204 ")
    still_up = "systemctl poweroff" not in machine.calls
    machine.uptime(6660 + 1200)
    machine.run("dead-man.sh")

    assert still_up
    assert "systemctl poweroff" in machine.calls


@pytest.mark.parametrize(
    ("systemctl", "poweroff"),
    [("exit 1", "exit 1"), ("exit 0", "exit 0"), ("exec sleep 9", "exec sleep 9")],
    ids=["refused", "without effect", "hanging"],
)
def test_a_power_off_that_does_not_happen_ends_with_the_kernel(
    machine: Machine, systemctl: str, poweroff: str
) -> None:
    machine.stub("systemctl", systemctl)
    machine.stub("poweroff", poweroff)
    machine.stub("timeout", 'shift; exec "$ROOT/tools/timeout" 0.1 "$@"')
    machine.uptime(5000)
    machine.run("dead-man.sh")
    asked = [call for call in machine.calls if not call.startswith("timeout")]

    assert asked[-3:] == ["systemctl poweroff", "poweroff -f", "poweroff -ff"]
    assert (machine.root / "proc/sysrq-trigger").read_text() == "o"


def test_only_a_machine_that_heard_nothing_goes_as_far_as_the_kernel(
    machine: Machine,
) -> None:
    machine.uptime(1199)
    machine.run("dead-man.sh")

    assert not (machine.root / "proc/sysrq-trigger").exists()


def test_what_a_reboot_broke_off_is_begun_again(machine: Machine) -> None:
    begin = "systemctl start --no-block ollama-proxy-install.service"
    at_first = begin in machine.calls
    configured(machine)
    arguments = ("1200", "a", "b")
    machine.run("arm.sh", *arguments)
    after_a_reboot = machine.calls.count(begin)
    (machine.root / "etc/ollama-proxy/installed").touch()
    (machine.root / "etc/ollama-proxy/driver").write_text("580-server 580.95.05\n")
    machine.run("arm.sh", *arguments)

    assert not at_first  # before cloud-init wrote what it needs; its runcmd begins it
    assert after_a_reboot == 1
    assert machine.calls.count(begin) == 1
    assert machine.stage == "ready"
    assert (machine.root / "run/ollama-proxy/driver").read_text().startswith("580-s")


def stages(machine: Machine) -> list[str]:
    lines = (machine.root / "run/ollama-proxy/stages").read_text().splitlines()
    assert all(line.split()[1].isdigit() for line in lines)
    return [line.split()[0] for line in lines]


def installed(machine: Machine) -> list[str]:
    """Return the packages of each installation that was more than tried out."""
    calls = [call for call in machine.calls if call.startswith("apt-get ")]
    return [
        call.partition("--no-install-recommends ")[2]
        for call in calls
        if " install " in call and " -s " not in call and " -f " not in call
    ]


@pytest.mark.parametrize("engine", ["native", "docker"])
@pytest.mark.parametrize("driver", [GPU, None])
def test_everything_is_set_up_and_each_stage_is_told(
    machine: Machine, driver: DriverRule | None, engine: str
) -> None:
    machine.without("ollama", "docker", "nvidia-ctk", "caddy")
    without_driver(machine, then=PUTS_IN_PLACE)
    on_the_web(machine)
    done = configured(machine, driver, engine).run("install.sh")
    told = stages(machine)
    wanted = ["guard", "ollama"]
    wanted += ["driver"] if driver else []
    wanted += ["docker"] if engine == "docker" else []
    wanted += ["toolkit"] if engine == "docker" and driver else []

    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.stage == "ready"
    assert [told[0], told[-1]] == ["booting", "ready"]
    assert sorted(told[1:-1]) == sorted([*wanted, *(f"{name}.end" for name in wanted)])


PUTS_IN_PLACE = """
case "$*" in *" -s "*) ;; *"install "*)
    for name in caddy docker nvidia-container-toolkit; do
        case "$*" in *$name*) cp "$ROOT/bin/zstd" "$ROOT/bin/$name" ;; esac
    done
    mv "$ROOT/bin/nvidia-container-toolkit" "$ROOT/bin/nvidia-ctk" 2> /dev/null || true
esac
"""


@pytest.mark.parametrize("engine", ["native", "docker"])
def test_one_update_and_a_transaction_for_each_that_is_waited_for(
    machine: Machine, engine: str
) -> None:
    machine.without("ollama", "docker", "nvidia-ctk", "caddy")
    without_driver(machine, then=PUTS_IN_PLACE)
    on_the_web(machine)
    configured(machine, GPU, engine).run("install.sh")
    updates = [call for call in machine.calls if call.endswith(" update")]

    assert len(updates) == 1
    assert [packages.split()[0] for packages in installed(machine)] == [
        "caddy",
        *(["docker.io"] if engine == "docker" else []),
        f"linux-modules-nvidia-580-server-{RELEASE}",
    ]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (GPU, "580-server"),
        (DriverRule(("server-open",), 570), "580-server-open"),
        (DriverRule(("server",), 570, 570), "570-server"),
    ],
)
def test_the_newest_branch_that_the_cards_take_is_installed(
    machine: Machine, rule: DriverRule, wanted: str
) -> None:
    without_driver(machine)
    machine.stub("dpkg-query", f"echo 'ii  nvidia-headless-no-dkms-{wanted}'")
    machine.stub("nvidia-smi", "echo 580.95.05")
    configured(machine, rule).run("install.sh")
    told = (machine.root / "run/ollama-proxy/driver").read_text()

    assert installed(machine) == [
        f"linux-modules-nvidia-{wanted}-{RELEASE} nvidia-headless-no-dkms-{wanted}"
        f" nvidia-utils-{wanted.removesuffix('-open')}"
    ]
    assert told == f"{wanted} 580.95.05\n"


def test_modules_that_the_archive_does_not_have_are_built(machine: Machine) -> None:
    lacks = (
        'case "$*" in *linux-modules*) echo "E: Unable to locate package"; exit 100;;'
        " esac"
    )
    without_driver(machine, then=lacks)
    done = configured(machine, GPU).run("install.sh")

    assert done.returncode == 0, done.stdout
    assert installed(machine) == [
        f"linux-headers-{RELEASE} nvidia-headless-580-server nvidia-utils-580-server"
    ]


def test_a_build_that_fails_is_removed_and_an_older_branch_is_tried(
    machine: Machine,
) -> None:
    fails = 'case "$*" in *" -s "*) ;; *install*580*) exit 100;; esac'
    without_driver(machine, then=fails, branches="570-server 580-server")
    machine.stub("dpkg-query", "echo nvidia-dkms-580-server")
    done = configured(machine, GPU).run("install.sh")
    removed = [call for call in machine.calls if " purge " in call]

    assert done.returncode == 0, done.stdout
    assert all("nvidia-dkms-580-server" in call for call in removed)
    assert "570-server" in installed(machine)[-1]


def test_where_no_module_fits_one_reboot_into_another_kernel_is_tried(
    machine: Machine,
) -> None:
    lacks = f'case "$*" in *-{RELEASE}*) echo "E: unmet"; exit 100;; esac'
    without_driver(machine, then=lacks)
    machine.stub("modprobe", "exit 1")
    reboots = []
    for _ in range(2):
        configured(machine, GPU).run("install.sh")
        reboots.append(machine.calls.count("systemctl reboot"))
    report = (machine.root / "run/ollama-proxy/report").read_text()
    flavour = RELEASE.rpartition("-")[2]

    assert installed(machine)[0].startswith(f"linux-image-{flavour} linux-modules-")
    assert reboots == [1, 1]
    assert machine.stage == "failed:driver"
    assert "a newer kernel was tried already" in report


def test_a_baked_template_installs_nothing_again(machine: Machine) -> None:
    done = configured(machine, GPU).run("install.sh")

    assert done.returncode == 0, done.stderr
    assert not [call for call in machine.calls if call.startswith("apt-get")]


def test_a_reboot_in_the_middle_of_a_package_is_mended_first(machine: Machine) -> None:
    configured(machine)
    (machine.root / "etc/ollama-proxy/begun").touch()
    machine.run("install.sh")
    mended = [i for i, call in enumerate(machine.calls) if " --configure -a" in call]

    assert mended
    assert not [c for c in machine.calls[: mended[0]] if c.startswith("apt-get")]


def test_ollama_gets_the_gpus_only_where_there_are_some(machine: Machine) -> None:
    configured(machine, None, "docker").run("install.sh")
    without = [call for call in machine.calls if call.startswith("docker run")]
    (machine.root / "calls").unlink()
    configured(machine, GPU, "docker").run("install.sh")
    with_gpus = [call for call in machine.calls if call.startswith("docker run")]

    assert "--gpus" not in without[0]
    assert "--gpus=all" in with_gpus[0]


def test_docker_keeps_the_gpus_when_systemd_reads_its_units_anew(
    machine: Machine,
) -> None:
    configured(machine, GPU, "docker").run("install.sh")
    daemon = json.loads((machine.root / "etc/docker/daemon.json").read_text())

    assert daemon == {"exec-opts": ["native.cgroupdriver=cgroupfs"]}
    assert "systemctl mask --now snapd.service" in machine.calls


@pytest.mark.parametrize("driver", [GPU, None])
def test_ollamas_archive_is_checked_and_what_no_card_uses_left_out(
    machine: Machine, driver: DriverRule | None
) -> None:
    machine.without("ollama")
    on_the_web(machine)
    done = configured(machine, driver).run("install.sh")
    root = machine.root
    libraries = {path.name for path in (root / "opt/ollama/lib/ollama").glob("*")}

    assert done.returncode == 0, done.stdout
    assert libraries == ({"cuda_v12", "cuda_v13"} if driver else set())
    link = root / "usr/local/bin/ollama"
    assert str(link.readlink()) == "/opt/ollama/bin/ollama"
    assert not (root / "opt/ollama" / ARCHIVE).exists()
    unit = (root / "etc/systemd/system/ollama.service").read_text()
    assert "EnvironmentFile=/etc/ollama-proxy/ollama.env\n" in unit


@pytest.mark.parametrize("given", [True, False])
def test_an_archive_with_another_checksum_is_never_unpacked(
    machine: Machine, *, given: bool
) -> None:
    machine.without("ollama")
    expected = on_the_web(machine, damaged=True)
    if given:
        (machine.root / "web/sha256sum.txt").write_text("nothing\n")
    configured(machine, sha256=expected if given else "").run("install.sh")
    report = (machine.root / "run/ollama-proxy/report").read_text()

    assert machine.stage == "failed:ollama"
    assert not (machine.root / "usr/local/bin/ollama").is_symlink()
    assert f"and {expected} was expected: it is not used" in report
    sums = [call for call in machine.calls if call.endswith("sha256sum.txt")]
    assert bool(sums) != given


def test_models_are_pulled_while_the_driver_is_installed_and_never_waited_for(
    machine: Machine,
) -> None:
    slow = 'case "$*" in *" -s "*) ;; *install*) until grep -q "^model " '
    slow += '"$ROOT/run/ollama-proxy/stages"; do sleep 0.05; done;; esac'
    without_driver(machine, then=slow)
    machine.stub("curl", 'case "$*" in */api/pull) exec sleep 60;; esac')
    done = configured(machine, GPU, models=("a:1b", "b")).run("install.sh")
    told = stages(machine)
    kept = (machine.root / "run/ollama-proxy/pulling.env").read_text()
    restarts = [c for c in machine.calls if c.endswith("start ollama")]

    assert done.returncode == 0, done.stdout
    assert told.index("model") < told.index("driver.end")
    assert "model.end" not in told
    assert kept == "OLLAMA_NOPRUNE=1\n"  # what is half pulled is not thrown away
    assert restarts == ["systemctl start ollama", "systemctl restart ollama"]


def test_a_pull_that_fails_fails_no_boot(machine: Machine) -> None:
    machine.stub("curl", 'case "$*" in */api/pull) exit 22;; esac')
    without_driver(machine, then="sleep 0.3")
    done = configured(machine, GPU, models=("a",)).run("install.sh")

    assert done.returncode == 0, done.stdout
    assert machine.stage == "ready"


@pytest.mark.parametrize(
    ("broken", "engine", "step"),
    [
        ("modprobe", "native", "driver"),
        ("nvidia-ctk", "docker", "toolkit"),
        ("docker", "docker", "ollama"),
        ("install", "native", "guard"),
    ],
)
def test_a_step_that_fails_is_named_with_what_it_said_last(
    machine: Machine, broken: str, engine: str, step: str
) -> None:
    machine.stub(broken, "seq 1 500; echo the last word; exit 1")
    done = configured(machine, GPU, engine).run("install.sh")
    report = (machine.root / "run/ollama-proxy/report").read_bytes()

    assert done.returncode != 0
    assert machine.stage == f"failed:{step}"
    assert b"the last word" in report or broken == "modprobe"
    assert 0 < len(report.splitlines()) <= 40
    assert len(report) <= 8192
    assert not (machine.root / "etc/ollama-proxy/installed").exists()


def test_a_step_that_fails_beside_a_longer_one_is_told_at_once(
    machine: Machine,
) -> None:
    machine.without("ollama")
    on_the_web(machine, damaged=True)
    machine.stub("modprobe", "exec sleep 5")
    began = time.perf_counter()
    configured(machine, GPU).run("install.sh")

    assert machine.stage == "failed:ollama"
    assert time.perf_counter() - began < 4


@pytest.mark.parametrize(
    ("says", "tries", "stage"),
    [
        ("E: Unable to locate package nvidia", 1, "failed:guard"),
        ("E: Sub-process /usr/bin/dpkg returned an error code (1)", 1, "failed:guard"),
        ("E: Failed to fetch http://x  Connection timed out", 5, "failed:guard"),
        ("E: Write error - write (28: No space left on device)", 1, "failed:disk"),
        ("E: You don't have enough free space in /var/cache", 1, "failed:disk"),
    ],
)
def test_only_what_may_heal_is_tried_again(
    machine: Machine, says: str, tries: int, stage: str
) -> None:
    machine.without("caddy")
    machine.stub("apt-cache", "echo caddy")
    machine.stub("apt-get", f'case "$*" in *install*) echo "{says}"; exit 100;; esac')
    configured(machine).run("install.sh")

    assert len(installed(machine)) == tries
    assert machine.stage == stage


@pytest.mark.parametrize("command", ["update", "install"])
def test_locks_of_apt_are_waited_for_but_not_for_ever(
    machine: Machine, command: str
) -> None:
    says = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 9"
    machine.without("caddy")
    machine.stub("apt-cache", "echo caddy")
    machine.stub("apt-get", f'case "$*" in *{command}*) echo "{says}"; exit 100;; esac')
    configured(machine).run("install.sh")
    asked = [call for call in machine.calls if f" {command}" in call]

    assert machine.stage == "failed:guard"
    assert 100 < len(asked) < 110


def test_docker_hubs_limit_is_told_by_name_and_not_tried_again(
    machine: Machine,
) -> None:
    machine.stub("docker", '[ "$1" != pull ] || { echo "toomanyrequests: x"; exit 1; }')
    configured(machine, GPU, "docker").run("install.sh")
    report = (machine.root / "run/ollama-proxy/report").read_text()

    assert machine.stage == "failed:ollama"
    assert sum(call.startswith("docker pull") for call in machine.calls) == 1
    assert report.splitlines()[-1].endswith(
        "EXOSCALE_ENGINE=native needs no Docker Hub"
    )


def test_going_down_is_no_failure(machine: Machine) -> None:
    without_driver(machine, then='[ "$1" != -s ] || kill -TERM $PPID')
    machine.stub("modprobe", "kill -TERM $(cat $ROOT/pid); sleep 1; exit 1")
    configured(machine, GPU)
    script = f"echo $$ > {machine.root}/pid; . {SCRIPTS / 'install.sh'}"
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env=machine.environment,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 143
    assert machine.stage == "driver"
