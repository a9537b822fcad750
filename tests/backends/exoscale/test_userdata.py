"""What an instance is told at its first boot."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ollama_proxy.authority import Certificate
from ollama_proxy.backends.exoscale import userdata
from ollama_proxy.backends.exoscale.userdata import LIMIT, cloud_config, user_data
from ollama_proxy.errors import SpecError
from tests.fakes.exoscale.guest import files_of, read_user_data

SCRIPTS = Path(__file__).parents[3] / "cloud-init" / "exoscale"
SHELLCHECK = str(Path(sys.executable).with_name("shellcheck"))
NASTY = "a\"b'c\n- d: {{ e }} $(f) `g` \\h #i\n"
VARIANTS = {"GPU": "570-server", "open modules": "570-server-open", "CPU": None}


def config(driver: str | None, certificate: str = "CERT\n") -> str:
    return cloud_config(
        Certificate(certificate, "KEY\n"),
        token="t0ken",
        driver=driver,
        ollama_version="0.32.15",
        dead_man_s=1200.0,
    )


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
    read = yaml.safe_load(config("570-server", certificate=NASTY))

    assert files_of(read)["/etc/ollama-proxy/server.crt"] == NASTY


def test_the_dead_mans_switch_is_armed_before_anything_else() -> None:
    read = yaml.safe_load(config(None))
    shell, flag, arm, name, seconds, dead_man, heartbeat = read["bootcmd"][0]

    assert (shell, flag, name, seconds) == ("sh", "-c", "arm", "1200")
    assert arm == (SCRIPTS / "arm.sh").read_text()
    assert dead_man == (SCRIPTS / "dead-man.sh").read_text()
    assert heartbeat == (SCRIPTS / "heartbeat.sh").read_text()


def test_the_first_boot_begins_the_unit_that_a_later_boot_goes_on_with() -> None:
    read = yaml.safe_load(config(None))
    unit = "ollama-proxy-install.service"

    assert read["runcmd"] == [["systemctl", "start", "--no-block", unit]]
    assert f"/{unit}" in (SCRIPTS / "arm.sh").read_text()


def test_the_secrets_are_for_root_alone() -> None:
    read = yaml.safe_load(config("570-server"))
    open_to_all = [
        one["path"] for one in read["write_files"] if one["permissions"] != "0600"
    ]

    assert open_to_all == ["/usr/local/sbin/ollama-proxy-install"]


def test_what_is_sent_is_packed_and_short_enough() -> None:
    packed = user_data(
        Certificate("CERT\n", "KEY\n"),
        token="t0ken",
        driver="570-server",
        ollama_version="0.32.15",
        dead_man_s=1200.0,
    )

    assert len(packed) < LIMIT / 3
    assert files_of(read_user_data(packed))["/etc/ollama-proxy/install.env"] == (
        "DRIVER=570-server\nOLLAMA_VERSION=0.32.15\n"
    )


def test_what_is_too_long_is_refused_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(userdata, "LIMIT", 100)
    with pytest.raises(SpecError, match="Exoscale takes 100"):
        user_data(
            Certificate("CERT\n", "KEY\n"),
            token="t",
            driver=None,
            ollama_version="0.32.15",
            dead_man_s=1.0,
        )
