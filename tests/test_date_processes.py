"""Processes of a machine whose date is wrong, and set while they run or between."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.black_box import (
    ROOT,
    Launch,
    ProxyProcess,
    launched_proxy,
    run_cli,
)
from tests.ports import address_of_nobody

YEARS_S = 56 * 365 * 86_400.0
_SET_DATE = """
import os, pathlib, time

_read = pathlib.Path.read_text
_time, _time_ns = time.time, time.time_ns


def _ahead_s():
    with open(os.environ["DATE_FILE"]) as file:
        return float(file.read() or 0)


def _read_text(path, *args, **more):
    named = path.name == "boot_id"
    return os.environ["BOOT"] if named else _read(path, *args, **more)


pathlib.Path.read_text = _read_text
time.time = lambda: _time() + _ahead_s()
time.time_ns = lambda: _time_ns() + int(_ahead_s() * 1e9)
"""
_CLOUD = """
import os
from pathlib import Path

from ollama_proxy.fleet.backend import Observation, Phase, Traits, Upstream


class Cloud:
    traits = Traits(poll_s=0.1, models_place="there")

    def __init__(self, folder, url):
        self.folder, self.url = Path(folder), url

    async def start(self, launch_id):
        with (self.folder / "launches").open("a") as file:
            file.write(f"{launch_id}\\n")
        (self.folder / "up").write_text(launch_id)

    async def inspect(self, launch_id):
        if launch_id not in await self.owned():
            return Observation(Phase.GONE)
        return Observation(Phase.RUNNING, Upstream(self.url))

    async def stop(self, launch_id):
        (self.folder / "up").unlink(missing_ok=True)

    async def owned(self):
        up = self.folder / "up"
        return {up.read_text()} if up.exists() else set()

    async def aclose(self):
        pass


def open_backend(context):
    return Cloud(os.environ["CLOUD_FOLDER"], os.environ["CLOUD_URL"])
"""


@dataclass(slots=True)
class Machine:
    """A machine with a plug-in for a cloud, whose date is set, and that is booted."""

    folder: Path
    url: str
    boot: str = "1"

    def set_date(self, ahead_s: float) -> None:
        fresh = self.folder / "date.new"
        fresh.write_text(str(ahead_s))
        fresh.rename(self.folder / "date")

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join((str(self.folder / "lib"), str(ROOT)))
        return {
            "PYTHONPATH": path,
            "BOOT": self.boot,
            "DATE_FILE": str(self.folder / "date"),
            "CLOUD_FOLDER": str(self.folder / "cloud"),
            "CLOUD_URL": self.url,
            "OLLAMA_PROXY_BACKEND": "its-cloud",
            "OLLAMA_PROXY_IDLE_TIMEOUT": "2m",
            "OLLAMA_PROXY_MAX_LIFETIME": "1d",
            "OLLAMA_PROXY_LOADS_KEEP_AWAKE": "false",
            "OLLAMA_MODEL": "tiny",
        }

    def proxy(self) -> AbstractContextManager[ProxyProcess]:
        """Run a proxy on it."""
        return launched_proxy(self.folder / "state", Launch(), self.environment())

    def launches(self) -> list[str]:
        return (self.folder / "cloud/launches").read_text().split()


@pytest.fixture(scope="module")
def simulator_url() -> Iterator[str]:
    """Have a simulator, which stands for every instance of the cloud."""
    simulator = subprocess.Popen(
        [sys.executable, "-m", "ollama_proxy.simulator", "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert simulator.stdout is not None
        yield simulator.stdout.readline().split()[-1]
    finally:
        simulator.terminate()
        simulator.communicate()


@pytest.fixture
def machine(tmp_path: Path, simulator_url: str) -> Machine:
    machine = Machine(tmp_path, simulator_url)
    machine.set_date(0.0)
    metadata = tmp_path / "lib/its_cloud-1.dist-info"
    metadata.mkdir(parents=True)
    (tmp_path / "cloud").mkdir()
    (metadata / "METADATA").write_text("Name: its-cloud\nVersion: 1\n")
    entry = "[ollama_proxy.backends]\nits-cloud = its_cloud:open_backend\n"
    (metadata / "entry_points.txt").write_text(entry)
    (tmp_path / "lib/its_cloud.py").write_text(_CLOUD)
    (tmp_path / "lib/sitecustomize.py").write_text(_SET_DATE)
    return machine


def is_ready(proxy: ProxyProcess) -> bool:
    return bool(proxy.get("/status")["instance_status"] == "ready")


def log_years(proxy: ProxyProcess) -> list[str]:
    lines = proxy.log.read_text().splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    requests = [one for one in told if one.get("route") == "/api/generate"]
    return [one["timestamp"][:4] for one in requests]


def test_an_instance_outlives_the_dates_of_its_machine(machine: Machine) -> None:
    machine.set_date(-YEARS_S)
    with machine.proxy() as proxy:
        proxy.post("/-/wake", {})
        proxy.until(lambda: is_ready(proxy))
        machine.set_date(0.0)
        assert proxy.get("/status")["idle_for_s"] < 60.0
    idle_s = []
    for ahead_s, boot in ((-YEARS_S, "1"), (0.0, "1"), (-YEARS_S, "2"), (0.0, "3")):
        machine.set_date(ahead_s)
        machine.boot = boot
        with machine.proxy() as proxy:
            proxy.until(lambda: is_ready(proxy))
            idle_s.append(proxy.get("/status")["idle_for_s"])

    assert len(machine.launches()) == 1
    assert max(idle_s) < 60.0


def test_dates_are_right_from_then_on(machine: Machine) -> None:
    now_year = time.gmtime().tm_year
    machine.set_date(-YEARS_S)
    years = []
    with machine.proxy() as proxy:
        for ahead_s in (-YEARS_S, 0.0):
            machine.set_date(ahead_s)
            status, body = proxy.post(
                "/api/generate", {"model": "tiny", "stream": False}
            )
            years.append((status, json.loads(body)["created_at"][:4]))
        proxy.until(lambda: len(log_years(proxy)) == len(years))
    logged = log_years(proxy)

    assert years == [(200, "1970"), (200, str(now_year))]
    assert logged == ["1970", str(now_year)]


def test_no_lease_is_judged_by_a_date_that_was_never_set(machine: Machine) -> None:
    machine.set_date(-YEARS_S)
    done = run_cli(
        "sweep",
        "--expired",
        "--dry-run",
        **machine.environment(),
        OLLAMA_PROXY_STATE_DIR=str(machine.folder / "state"),
    )

    assert done.returncode == 2
    assert "no lease can be judged: this machine's date is 1970-" in " ".join(
        done.stderr.split()
    )


def test_check_says_that_the_date_was_never_set(machine: Machine) -> None:
    machine.set_date(-YEARS_S)
    state = str(machine.folder / "state")
    address = address_of_nobody()
    done = run_cli(
        "check",
        **machine.environment(),
        OLLAMA_PROXY_STATE_DIR=state,
        OLLAMA_HOST=address,
    )

    assert done.returncode == 1
    assert "this machine's date is 1970-" in " ".join(done.stdout.split())
