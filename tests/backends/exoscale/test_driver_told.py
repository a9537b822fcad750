"""`/status` shows which driver an instance installed."""

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console

from ollama_proxy.backends.base.guard_client import read_driver
from ollama_proxy.cli.status_view import render_status
from tests.backends.exoscale.rig import Rig
from tests.proxy import running_proxy

TOLD = "580-server 580.95.05"


async def test_the_installed_driver_is_in_the_status_as_long_as_the_instance_is(
    rig: Rig, tmp_path: Path
) -> None:
    rig.guests.driver = f"{TOLD}\n"
    async with running_proxy(
        tmp_path / "proxy", backend=rig.open(), OLLAMA_MODEL="tiny"
    ) as proxy:
        before = (await proxy.status())["driver"]
        await proxy.wake()
        status = await proxy.status()
        proxy.parts.pool.stop()
        await proxy.until(lambda: proxy.state == "cold", within_s=10.0)
        after = (await proxy.status())["driver"]

    assert (before, status["driver"], after) == (None, TOLD, None)
    shown = io.StringIO()
    Console(file=shown, width=200).print(render_status(status, "http://here"))
    assert TOLD in shown.getvalue()


async def test_a_proxy_that_adopts_an_instance_tells_its_driver_too(
    rig: Rig, tmp_path: Path
) -> None:
    rig.guests.driver = f"{TOLD}\n"
    async with running_proxy(
        tmp_path / "proxy", backend=rig.open(), OLLAMA_MODEL="tiny"
    ) as before:
        await before.wake()
    async with running_proxy(
        tmp_path / "proxy", backend=rig.open(), OLLAMA_MODEL="tiny"
    ) as proxy:
        async with asyncio.timeout(10):
            while (told := (await proxy.status())["driver"]) is None:
                proxy.parts.pool.check_now()
                await asyncio.sleep(0.02)
        proxy.parts.pool.stop()
        await proxy.until(lambda: proxy.state == "cold", within_s=10.0)

    assert told == TOLD
    assert rig.cloud.bought == 1


async def test_an_instance_that_tells_no_driver_has_none_in_the_status(
    rig: Rig, tmp_path: Path
) -> None:
    async with running_proxy(
        tmp_path / "proxy", backend=rig.open(), OLLAMA_MODEL="tiny"
    ) as proxy:
        await proxy.wake()
        status = await proxy.status()
        proxy.parts.pool.stop()
        await proxy.until(lambda: proxy.state == "cold", within_s=10.0)

    assert status["driver"] is None


@pytest.mark.parametrize(
    ("said", "driver"),
    [
        (b"580-server-open 580.95.05\n", "580-server-open 580.95.05"),
        (b"template 550.120\r\n", "template 550.120"),
        (b"580-server \n", "580-server"),
        (b"", ""),
        (b"\xff\xfe", ""),
        (b"580\nsecond line", ""),
        (b"<html><body>no</body></html>", ""),
        (b"\x1b[31m580 1\x1b[0m", ""),
        (b"NVIDIA-SMI has failed because it couldn't communicate", ""),
        (b"5" * 200, ""),
    ],
)
def test_only_a_line_with_a_branch_and_a_version_is_a_driver(
    said: bytes, driver: str
) -> None:
    assert read_driver(said) == driver
