"""``deploy/node-setup.sh`` on a machine of stubs, which record their calls."""

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "deploy" / "node-setup.sh"
SHELLCHECK = str(Path(sys.executable).with_name("shellcheck"))
TOOLS = (
    *("sh", "sed", "sort", "cat", "grep", "tr", "dirname", "mkdir", "tee", "mktemp"),
    *("rm", "env", "cp", "cksum", "install", "test"),
)

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the script is for Linux"
)

STUBS = {
    "id": "echo ${UID_OF_STUB:-0}",
    "uname": "echo Linux",
    "sleep": ":",
    "sudo": 'note; "$@"',
    "getent": """
        case $1 in group) echo "ollama:x:998:"; exit ;; esac
        for one in ${HUB_AT:-192.0.2.1 2001:db8::1}; do echo "$one  STREAM"; done""",
    "ollama": 'called="$called $OLLAMA_PROXY_NODE_TOKEN"; called="${called% }"; note',
    "nohup": 'called="$called at $SERVER_URL by $OLLAMA_PROXY_NODE_TOKEN"; note',
    # Ollama answers once it was started; a model is there once it was pulled.
    "curl": """
        case $* in
        *install.sh*) note; echo 'echo installer >>"$HERE/calls"' >"$3" ;;
        */api/version*) [ -e "$HERE/started" ] ;;
        */healthz*) exit 7 ;;
        */api/show*) case $* in *there*) ;; *) exit 22 ;; esac ;;
        *) note ;;
        esac""",
    "systemctl": """
        case $* in
        list-units) ;;
        is-active*) [ -e "$HERE/active" ] ;;
        "enable --now ollama") note; : >"$HERE/started" ;;
        restart*) note; : >"$HERE/active" ;;
        *) note ;;
        esac""",
    "ufw": 'case $1 in status) echo "Status: active" ;; *) note ;; esac',
    "firewall-cmd": """
        case $* in
        --state) echo running ;;
        *--query-rich-rule*) grep -qF "${2#--query-rich-rule=}" "$HERE/calls" ;;
        *) note ;;
        esac""",
    "docker": """
        case $* in
        info) ;;
        "image inspect --format"*) echo sha256:1 ;;
        "image inspect"*) [ -e "$HERE/image" ] ;;
        build*) note; : >"$HERE/image" ;;
        "inspect --format"*) [ -e "$HERE/label" ] && cat "$HERE/label" ;;
        inspect*) [ -e "$HERE/label" ] ;;
        run*) note; while [ "$1" != --label ]; do shift; done
            echo "true ${2#node-setup=}" >"$HERE/label" ;;
        *) note ;;
        esac""",
    "python3": """
        case $* in
        "-c "*) ;;
        "-m venv"*) note; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
        *) note ;;
        esac""",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with some of the stubs as its only programs."""

    folder: Path

    def has(self, *names: str) -> "Machine":
        for name in names:
            path = self.folder / "bin" / name
            path.write_text(
                f'#!/bin/sh\ncalled="{name} $*"\n'
                'note() { echo "$called" >>"$HERE/calls"; }\n'
                f"{STUBS[name]}\n"
            )
            path.chmod(0o755)
        return self

    def run(self, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(SCRIPT), *options],
            env={
                "PATH": str(self.folder / "bin"),
                "HERE": str(self.folder),
                "UNIT_DIR": str(self.folder / "units"),
                "INSTALL_DIR": str(self.folder / "opt"),
                "ENV_FILE": str(self.folder / "etc/node.env"),
                "USUAL_MODELS": str(self.folder / "models"),
                "SERVER_URL": "http://hub.lan:8000",
                **env,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self.folder,
        )

    def calls(self) -> list[str]:
        """Return what changed something, since the last time."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines()
        path.write_text("")
        return lines

    def until_called(self, name: str) -> None:
        """Wait for a program that was begun in the background."""
        deadline = time.perf_counter() + 20
        while f"{name} " not in (self.folder / "calls").read_text():
            assert time.perf_counter() < deadline
            time.sleep(0.01)

    def files(self) -> set[Path]:
        return {path for path in self.folder.rglob("*") if path.name != "calls"}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "bin").mkdir()
    (tmp_path / "calls").touch()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return Machine(tmp_path).has("id", "uname", "sleep", "getent", "curl", "systemctl")


def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(
        [SHELLCHECK, SCRIPT], capture_output=True, text=True, check=False
    )

    assert done.stdout + done.stderr == ""


def test_a_machine_with_docker_and_ufw_becomes_a_node(machine: Machine) -> None:
    done = machine.has("docker", "ufw", "ollama").run(NODE_ID="gpu-1")

    assert done.returncode == 0, done.stderr
    calls = machine.calls()
    assert calls[:-1] == [
        "systemctl enable --now ollama",
        "ollama pull qwen2.5:7b",
        "ufw allow proto tcp from 192.0.2.1 to any port 8001",
        "ufw allow proto tcp from 2001:db8::1 to any port 8001",
        f"docker build --tag ollama-proxy {SCRIPT.parents[1]}",
    ]
    assert calls[-1].startswith("docker run --detach --name ollama-node ")
    assert " --network host " in calls[-1]
    file = machine.folder / "etc/node.env"
    assert calls[-1].endswith(f" --env-file {file} ollama-proxy node")
    assert file.read_text() == (
        "SERVER_URL=http://hub.lan:8000\nNODE_PORT=8001\nNODE_ID=gpu-1\n"
        "OLLAMA_BASE_URL=http://127.0.0.1:11434\n"
    )


def test_a_second_run_changes_nothing(machine: Machine) -> None:
    machine.has("docker", "firewall-cmd", "ollama")
    models = "there:1b"
    assert machine.run(REQUIRED_MODELS=models).returncode == 0
    first = (machine.folder / "calls").read_text()
    assert machine.run(REQUIRED_MODELS=models).returncode == 0

    assert (machine.folder / "calls").read_text() == first


def test_other_settings_replace_the_agent(machine: Machine) -> None:
    machine.has("docker", "ollama").run(SKIP_MODEL_PULL="1")
    machine.calls()
    machine.run(SKIP_MODEL_PULL="1", NODE_PORT="9001")
    calls = machine.calls()

    assert calls[:2] == [
        "docker stop --time 130 ollama-node",
        "docker rm --force ollama-node",
    ]
    assert calls[2].startswith("docker run ")
    assert "NODE_PORT=9001\n" in (machine.folder / "etc/node.env").read_text()


@pytest.mark.parametrize("way", ["docker", "python3"])
def test_a_dry_run_changes_nothing_and_shows_everything(
    machine: Machine, way: str
) -> None:
    machine.has(way, "ufw")
    before = machine.files()
    done = machine.run("--dry-run")

    assert done.returncode == 0, done.stderr
    assert machine.calls() == []
    assert machine.files() == before
    for words in (
        "+ curl -fsSL",
        "+ systemctl enable --now ollama",
        "qwen2.5:7b",
        "+ ufw allow proto tcp from 2001:db8::1 to any port 8001",
        "+ docker run" if way == "docker" else "+ systemctl restart ollama-node",
    ):
        assert words in done.stdout


def test_ollama_is_installed_if_it_is_not_there(machine: Machine) -> None:
    assert machine.has("docker").run(SKIP_MODEL_PULL="1").returncode == 0
    calls = machine.calls()

    assert calls[0].startswith("curl -fsSL --output ")
    assert calls[0].endswith(" https://ollama.com/install.sh")
    assert calls[1] == "installer"


def test_without_docker_it_is_a_venv_with_a_unit_that_is_started_once(
    machine: Machine,
) -> None:
    machine.has("python3", "ollama")
    done = machine.run(REQUIRED_MODELS="")
    calls, opt = machine.calls(), machine.folder / "opt"

    assert done.returncode == 0, done.stderr
    assert calls == [
        "systemctl enable --now ollama",
        f"python3 -m venv {opt}",
        f"python3 -m pip install --quiet --upgrade {SCRIPT.parents[1]}",
        "systemctl daemon-reload",
        "systemctl enable ollama-node",
        "systemctl restart ollama-node",
    ]
    unit = (machine.folder / "units/ollama-node.service").read_text()
    assert f"ExecStart={opt}/bin/ollama-proxy node\n" in unit
    assert f"EnvironmentFile={machine.folder}/etc/node.env\n" in unit
    assert "SupplementaryGroups=ollama\n" in unit
    assert machine.run(REQUIRED_MODELS="").returncode == 0
    assert machine.calls() == []


TOKEN = "opj_abc.def-ghi_j"
SETTINGS = {
    "SERVER_URL": "https://hub.lan:8000",
    "OLLAMA_PROXY_NODE_TOKEN": TOKEN,
    "NODE_LABELS": "gpu=a100,site=home",
    "HEARTBEAT_INTERVAL": "15s",
    "NODE_REQUEST_TIMEOUT": "5m",
    "OLLAMA_NUM_PARALLEL": "4",
    "LOG_LEVEL": "debug",
}


@pytest.mark.parametrize("way", ["docker", "python3"])
def test_every_setting_reaches_the_agent_and_the_token_no_command_line(
    machine: Machine, way: str
) -> None:
    machine.has(way, "ollama")
    done = machine.run(**SETTINGS)
    file = machine.folder / "etc/node.env"
    lines = file.read_text().splitlines()

    assert done.returncode == 0, done.stderr
    assert {f"{name}={value}" for name, value in SETTINGS.items()} <= set(lines)
    assert file.stat().st_mode & 0o777 == 0o600
    assert TOKEN not in done.stdout + done.stderr
    assert TOKEN not in "".join(machine.calls())
    assert machine.run(SKIP_MODEL_PULL="1", **SETTINGS).returncode == 0
    assert machine.calls() == []
    machine.run(SKIP_MODEL_PULL="1", **SETTINGS | {"LOG_LEVEL": "info"})
    last = "docker run " if way == "docker" else "systemctl restart ollama-node"
    assert machine.calls()[-1].startswith(last)


def test_a_container_sees_the_folder_of_models_but_may_not_write_it(
    machine: Machine,
) -> None:
    (machine.folder / "models").mkdir()
    machine.has("docker", "ollama").run(SKIP_MODEL_PULL="1")

    assert f" --volume {machine.folder}/models:/models:ro " in machine.calls()[-1]
    settings = (machine.folder / "etc/node.env").read_text()
    assert "OLLAMA_MODELS=/models\n" in settings


def test_a_token_for_a_hub_without_tls_is_refused_before_anything_happens(
    machine: Machine,
) -> None:
    machine.has("docker", "ollama")
    done = machine.run(OLLAMA_PROXY_NODE_TOKEN=TOKEN)

    assert done.returncode == 1
    assert done.stderr.startswith("node-setup: SERVER_URL: ")
    assert machine.calls() == []
    assert machine.run(OLLAMA_PROXY_NODE_TOKEN=TOKEN, NODE_TLS="false").returncode == 0


def test_without_systemd_the_agent_is_started_and_that_it_ends_is_said(
    machine: Machine,
) -> None:
    (machine.folder / "bin/systemctl").unlink()
    (machine.folder / "started").touch()
    machine.has("python3", "ollama", "nohup")
    done = machine.run(SKIP_MODEL_PULL="1", **SETTINGS)
    machine.until_called("nohup")

    assert "the agent is started now, and not after a reboot" in done.stdout
    assert machine.calls()[-1] == (
        f"nohup {machine.folder}/opt/bin/ollama-proxy node at https://hub.lan:8000"
        f" by {TOKEN}"
    )
    assert TOKEN not in done.stdout + done.stderr


def test_with_neither_docker_nor_python_it_says_so_and_changes_nothing(
    machine: Machine,
) -> None:
    done = machine.has("ufw", "ollama").run()

    assert done.returncode == 1
    assert "neither Docker nor a Python of 3.11 or newer" in done.stderr
    assert machine.calls() == []


def test_firewalld_gets_a_rule_for_each_family(machine: Machine) -> None:
    machine.has("docker", "firewall-cmd", "ollama").run(SKIP_MODEL_PULL="1")
    rules = [one for one in machine.calls() if "--add-rich-rule" in one]

    assert rules == [
        "firewall-cmd --permanent --add-rich-rule=rule"
        f' family="{family}" source address="{address}" port port="8001"'
        ' protocol="tcp" accept'
        for family, address in (("ipv4", "192.0.2.1"), ("ipv6", "2001:db8::1"))
    ]


@pytest.mark.parametrize(
    ("switch", "ports"), [("0", {"8001"}), ("1", {"8001", "11434"})]
)
def test_ollama_itself_is_open_only_if_the_owner_says_so(
    machine: Machine, switch: str, ports: set[str]
) -> None:
    machine.has("docker", "ufw", "ollama").run(SKIP_MODEL_PULL="1", OPEN_OLLAMA=switch)
    opened = {one.split()[-1] for one in machine.calls() if one.startswith("ufw")}

    assert opened == ports
    listens = machine.folder / "units/ollama.service.d/node-setup.conf"
    assert listens.exists() is (switch == "1")


def test_a_hub_on_this_machine_needs_no_open_port(machine: Machine) -> None:
    machine.has("docker", "ufw", "ollama").run(HUB_AT="127.0.0.1 ::1")

    assert not any(one.startswith("ufw") for one in machine.calls())


def test_the_old_names_are_honoured(machine: Machine) -> None:
    machine.has("docker", "ufw", "ollama").run(
        REQUIRED_MODELS="a:1b, there:2b,c", NODE_PORT="9001", OLLAMA_PORT="11500"
    )
    calls = machine.calls()

    assert [one for one in calls if "pull" in one] == [
        "ollama pull a:1b",
        "ollama pull c",
    ]
    assert "ufw allow proto tcp from 192.0.2.1 to any port 9001" in calls
    settings = (machine.folder / "etc/node.env").read_text()
    assert "OLLAMA_BASE_URL=http://127.0.0.1:11500\n" in settings
    written = (machine.folder / "units/ollama.service.d/node-setup.conf").read_text()
    assert written == "[Service]\nEnvironment=OLLAMA_HOST=127.0.0.1:11500\n"


def test_another_user_than_root_uses_sudo(machine: Machine) -> None:
    machine.has("docker", "ufw", "ollama", "sudo")
    machine.run(SKIP_MODEL_PULL="1", UID_OF_STUB="1000")

    assert "sudo systemctl enable --now ollama" in machine.calls()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER_URL", "hub:8000"),
        ("SERVER_URL", "http://hub$(touch x)"),
        ("SERVER_URL", "http://a b"),
        ("NODE_PORT", "0"),
        ("NODE_PORT", "08001"),
        ("NODE_PORT", "65536"),
        ("OLLAMA_PORT", "x"),
        ("SKIP_MODEL_PULL", "yes"),
        ("OPEN_OLLAMA", "true"),
        ("REQUIRED_MODELS", 'a";b'),
        ("NODE_ID", "a\nb"),
        ("NODE_IMAGE", "--privileged"),
        ("NODE_LABELS", "a=b c"),
        ("LOG_LEVEL", "info\nEVIL=1"),
        ("HEARTBEAT_INTERVAL", '"30"'),
        ("OLLAMA_PROXY_NODE_TOKEN", "a'b"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_happens(
    machine: Machine, name: str, value: str
) -> None:
    done = machine.has("docker", "ufw", "ollama").run(**{name: value})

    assert done.returncode == 1
    assert done.stderr.startswith(f"node-setup: {name}: ")
    assert machine.calls() == []
