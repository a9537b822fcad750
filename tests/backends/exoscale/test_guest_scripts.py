"""The shell parts of an instance, run with stubs on the PATH."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "cloud-init" / "exoscale"
STUBS = (
    "systemctl",
    "apt-get",
    "docker",
    "curl",
    "gpg",
    "modprobe",
    "nvidia-smi",
    "nvidia-ctk",
    "caddy",
    "poweroff",
    "install",
)


@dataclass(slots=True)
class Machine:
    """A folder that stands for an instance's root; stubs note how they were called."""

    root: Path

    @property
    def calls(self) -> list[str]:
        log = self.root / "calls"
        return log.read_text().splitlines() if log.exists() else []

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
        environment = {
            "ROOT": str(self.root),
            "PATH": f"{self.root / 'bin'}:/usr/bin:/bin",
            "RETRY_PAUSE": "0",
            "PATIENCE_S": "0",
        }
        return subprocess.run(
            ["sh", str(SCRIPTS / script), *arguments],
            env=environment,
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


def configured(machine: Machine, driver: str) -> Machine:
    config = machine.root / "etc/ollama-proxy"
    (config / "install.env").write_text(f"DRIVER={driver}\nOLLAMA_VERSION=0.32.15\n")
    for name in ("Caddyfile", "server.crt", "server.key", "link.env", "ollama.env"):
        (config / name).write_text("x\n")
    return machine


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
    machine.stub("timeout", 'shift; exec /usr/bin/timeout 0.1 "$@"')
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
    configured(machine, "")
    arguments = ("1200", "a", "b")
    machine.run("arm.sh", *arguments)
    after_a_reboot = machine.calls.count(begin)
    (machine.root / "etc/ollama-proxy/installed").touch()
    machine.run("arm.sh", *arguments)

    assert not at_first  # before cloud-init wrote what it needs; its runcmd begins it
    assert after_a_reboot == 1
    assert machine.calls.count(begin) == 1
    assert machine.stage == "ready"


@pytest.mark.parametrize("driver", ["570-server", "570-server-open", ""])
def test_everything_is_set_up_in_order(machine: Machine, driver: str) -> None:
    machine.without("nvidia-smi", "nvidia-ctk", "caddy", "docker")
    names = "caddy nvidia-smi nvidia-ctk docker"
    then = f'for p in {names}; do cp "$ROOT/bin/true-stub" "$ROOT/bin/$p"; done'
    machine.stub("true-stub")
    machine.stub("apt-get", then)
    done = configured(machine, driver).run("install.sh")
    stages = [
        line.removeprefix("ollama-proxy: ")
        for line in done.stdout.splitlines()
        if line.startswith("ollama-proxy: ")
    ]
    with_gpu = ["guard", "driver", "docker", "toolkit", "ollama", "ready"]

    assert done.returncode == 0, done.stderr
    assert stages == (with_gpu if driver else ["guard", "docker", "ollama", "ready"])
    assert machine.stage == "ready"


def test_the_driver_matches_the_running_kernel_and_its_branch(machine: Machine) -> None:
    machine.without("nvidia-smi")
    machine.stub("apt-get", 'cp "$ROOT/bin/modprobe" "$ROOT/bin/nvidia-smi"')
    configured(machine, "570-server-open").run("install.sh")
    installed = next(call for call in machine.calls if "nvidia-headless" in call)

    assert f"linux-modules-nvidia-570-server-open-{os.uname().release}" in installed
    assert "nvidia-headless-no-dkms-570-server-open " in installed
    assert installed.endswith("nvidia-utils-570-server")


def test_a_baked_template_installs_nothing_again(machine: Machine) -> None:
    done = configured(machine, "570-server").run("install.sh")

    assert done.returncode == 0, done.stderr
    assert not [call for call in machine.calls if call.startswith("apt-get")]


def test_ollama_gets_the_gpus_only_where_there_are_some(machine: Machine) -> None:
    configured(machine, "").run("install.sh")
    without = [call for call in machine.calls if call.startswith("docker run")]
    (machine.root / "calls").unlink()
    configured(machine, "570-server").run("install.sh")
    with_gpus = [call for call in machine.calls if call.startswith("docker run")]

    assert "--gpus" not in without[0]
    assert "--gpus=all" in with_gpus[0]


@pytest.mark.parametrize(
    ("broken", "step"),
    [("modprobe", "driver"), ("nvidia-ctk", "toolkit"), ("docker", "ollama")],
)
def test_a_step_that_fails_is_named(machine: Machine, broken: str, step: str) -> None:
    machine.stub(broken, "exit 1")
    done = configured(machine, "570-server").run("install.sh")

    assert done.returncode != 0
    assert machine.stage == f"failed:{step}"
