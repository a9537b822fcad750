"""The limit of descriptors is raised, and the log has the number of requests."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ollama_proxy.base.fd_limit import requests_at_once
from tests.black_box import proxy_process


def test_a_soft_limit_is_raised_to_the_hard_one() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import resource as r\n"
            "from ollama_proxy.base.fd_limit import raise_limit\n"
            f"r.setrlimit(r.RLIMIT_NOFILE, (256, {hard}))\n"
            "print(raise_limit(), r.getrlimit(r.RLIMIT_NOFILE)[0])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert told.stdout.split() == [str(hard)] * 2


@pytest.mark.parametrize(
    ("descriptors", "requests"), [(100, 0), (1024, 448), (20_000, 9936)]
)
def test_each_request_takes_two(descriptors: int, requests: int) -> None:
    assert requests_at_once(descriptors) == requests


def test_the_proxy_tells_how_many_requests_fit(tmp_path: Path) -> None:
    with proxy_process(tmp_path / "s") as proxy:
        proxy.terminate()

    told = proxy.log.read_text("utf-8").splitlines()
    line = next(line for line in told if "proxy.started" in line)
    assert re.search(r'"requests_at_once": ?[1-9]\d+', line)
