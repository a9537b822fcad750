"""The user data of an instance's first boot."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ollama_proxy.backends.exoscale.drivers import DriverRule
from ollama_proxy.backends.exoscale.userdata import (
    LIMIT,
    Installation,
    cloud_config,
    user_data,
)
from ollama_proxy.base.errors import SpecError
from ollama_proxy.upstream.certificates import Certificate
from tests.fakes.exoscale.guest import files_of, read_user_data

SCRIPTS = Path(__file__).parents[3] / "cloud-init" / "exoscale"
SHELLCHECK = str(Path(sys.executable).with_name("shellcheck"))
NASTY = "a\"b'c\n- d: {{ e }} $(f) `g` \\h #i\n"
GPU = DriverRule(("server", "server-open"), least=550)
VARIANTS = {
    "GPU": Installation("0.32.15", GPU, models=("llama3.2", "hf.co/a/b:Q4_K_M")),
    "open modules": Installation("0.32.15", DriverRule(("server-open",), 570)),
    "Docker": Installation("0.32.15", GPU, "docker"),
    "CPU": Installation("0.32.15"),
}


def config(installation: Installation, certificate: str = "CERT\n") -> str:
    return cloud_config(
        Certificate(certificate, "KEY\n"),
        installation,
        token="t0ken",
        dead_man_s=1200.0,
    )


def settled(installation: Installation) -> dict[str, str]:
    """Return the variables as a shell reads them."""
    names = "ENGINE OLLAMA_SHA256 DRIVER_KINDS DRIVER_LEAST DRIVER_MOST MODELS"
    script = f'{installation.variables()}\nfor n in {names}; do eval echo "\\$$n"; done'
    read = subprocess.run(
        ["sh", "-ceu", script], capture_output=True, text=True, check=True
    )
    return dict(zip(names.split(), read.stdout.splitlines(), strict=True))


@pytest.mark.skipif(shutil.which("cloud-init") is None, reason="there is no cloud-init")
@pytest.mark.parametrize("variant", VARIANTS)
def test_cloud_init_accepts_every_variant(tmp_path: Path, variant: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(config(VARIANTS[variant]))
    checked = subprocess.run(
        ["cloud-init", "schema", "--config-file", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("script", [path.name for path in SCRIPTS.glob("*.sh")])
def test_shellcheck_finds_nothing(script: str) -> None:
    checked = subprocess.run(
        [SHELLCHECK, "--severity=style", str(SCRIPTS / script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout


def test_no_value_can_become_anything_but_a_value() -> None:
    read = yaml.safe_load(config(VARIANTS["GPU"], certificate=NASTY))

    assert files_of(read)["/etc/ollama-proxy/server.crt"] == NASTY


def test_the_dead_mans_switch_is_armed_before_anything_else() -> None:
    read = yaml.safe_load(config(VARIANTS["CPU"]))
    shell, flag, arm, name, seconds, dead_man, heartbeat = read["bootcmd"][0]

    assert (shell, flag, name, seconds) == ("sh", "-c", "arm", "1200")
    assert arm == (SCRIPTS / "arm.sh").read_text()
    assert dead_man == (SCRIPTS / "dead-man.sh").read_text()
    assert heartbeat == (SCRIPTS / "heartbeat.sh").read_text()


def test_the_first_boot_begins_the_unit_that_a_later_boot_goes_on_with() -> None:
    read = yaml.safe_load(config(VARIANTS["CPU"]))
    unit = "ollama-proxy-install.service"

    assert read["runcmd"] == [["systemctl", "start", "--no-block", unit]]
    assert f"/{unit}" in (SCRIPTS / "arm.sh").read_text()


def test_the_secrets_are_for_root_alone() -> None:
    read = yaml.safe_load(config(VARIANTS["GPU"]))
    open_to_all = [
        one["path"] for one in read["write_files"] if one["permissions"] != "0600"
    ]

    assert open_to_all == ["/usr/local/sbin/ollama-proxy-install"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_sent_is_packed_and_short_enough(variant: str) -> None:
    installation = VARIANTS[variant]
    packed = user_data(
        Certificate("CERT\n", "KEY\n"), installation, token="t0ken", dead_man_s=1200.0
    )

    assert len(packed) < LIMIT / 2
    assert files_of(read_user_data(packed))["/etc/ollama-proxy/install.env"] == (
        installation.variables()
    )


def test_the_installation_reads_what_was_decided_here() -> None:
    rule = DriverRule(("server",), 570, 580)
    one = Installation("0.32.15", rule, "docker", "ab" * 32, ("llama3.2",))

    assert settled(one) == {
        "ENGINE": "docker",
        "OLLAMA_SHA256": "ab" * 32,
        "DRIVER_KINDS": "server",
        "DRIVER_LEAST": "570",
        "DRIVER_MOST": "580",
        "MODELS": "llama3.2",
    }


@pytest.mark.parametrize(
    "name",
    ["a'b", "$(reboot)", "a b", "a\nb", 'a"b', "-x", "", "é", "`id`", "a" * 201],
)
def test_a_models_name_is_never_more_than_a_name_on_the_instance(name: str) -> None:
    read = settled(Installation("0.32.15", GPU, models=(name, "qwen3:8b")))

    assert read["MODELS"] == "qwen3:8b"


def test_no_more_models_than_a_disk_takes_are_pulled_beside_the_driver() -> None:
    many = tuple(f"m{number}" for number in range(100))

    assert settled(Installation("0.32.15", GPU, models=many))["MODELS"].split() == list(
        many[:8]
    )


def test_what_is_too_long_is_refused_before_it_is_sent() -> None:
    with pytest.raises(SpecError, match="Exoscale takes 100"):
        user_data(
            Certificate("CERT\n", "KEY\n"),
            Installation("0.32.15"),
            token="t",
            dead_man_s=1.0,
            limit=100,
        )
