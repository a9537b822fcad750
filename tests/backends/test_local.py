"""The local backend's processes: one group, no orphan, found by their tag."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from ollama_proxy.backends.local import (
    LAUNCH_VARIABLE,
    OWNER_VARIABLE,
    LocalBackend,
    Program,
    choose_program,
)
from ollama_proxy.base.errors import SpecError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from tests.processes import living

LAUNCH = LaunchId("l00")


def script(tmp_path: Path, text: str) -> Program:
    """Return a program made of a few lines of Python."""
    path = tmp_path / "program.py"
    path.write_text(text)
    return Program((sys.executable, str(path)), simulated=True)


def tagged(owner_id: str) -> list[psutil.Process]:
    return living(lambda process: process.environ().get(OWNER_VARIABLE) == owner_id)


async def until_running(backend: LocalBackend) -> None:
    async with asyncio.timeout(10):
        while (await backend.inspect(LAUNCH)).phase is not Phase.RUNNING:
            await asyncio.sleep(0.02)


async def test_the_children_of_a_program_end_with_it(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import subprocess, time\nsubprocess.Popen(['sleep', '60'])\ntime.sleep(60)\n",
    )
    backend = LocalBackend("owner-children", program)
    await backend.start(LAUNCH)
    async with asyncio.timeout(10):
        while len(tagged("owner-children")) < 2:
            await asyncio.sleep(0.02)
    await backend.stop(LAUNCH)

    assert tagged("owner-children") == []


class LateChild:
    """A child whose end is reported a while after it is gone."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.was_waited_for = False

    async def wait(self) -> None:
        await self._process.wait()
        await asyncio.sleep(0.05)
        self.was_waited_for = True


@pytest.mark.parametrize("ends", ["when stopped", "by itself"])
async def test_a_child_is_waited_for_although_its_process_is_seen_to_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    spawn = asyncio.create_subprocess_exec
    children: list[LateChild] = []

    async def late(*command: str, **options: Any) -> LateChild:
        children.append(LateChild(await spawn(*command, **options)))
        return children[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", late)
    seconds = 60 if ends == "when stopped" else 0
    program = script(tmp_path, f"import time\ntime.sleep({seconds})\n")
    backend = LocalBackend("owner-late", program)
    await backend.start(LAUNCH)
    if ends == "when stopped":
        await backend.stop(LAUNCH)
    async with asyncio.timeout(10):
        while (await backend.inspect(LAUNCH)).phase is not Phase.GONE:
            await asyncio.sleep(0.02)

    assert [child.was_waited_for for child in children] == [True]


async def test_a_program_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = script(
        tmp_path,
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('x', flush=True)\ntime.sleep(60)\n",
    )
    backend = LocalBackend("owner-deaf", program, stop_grace_s=0.3)
    await backend.start(LAUNCH)
    await until_running(backend)
    await asyncio.sleep(0.3)
    await backend.stop(LAUNCH)
    async with asyncio.timeout(5):
        while tagged("owner-deaf"):
            await asyncio.sleep(0.02)


async def test_a_program_that_ended_by_itself_is_gone(tmp_path: Path) -> None:
    backend = LocalBackend("owner-brief", script(tmp_path, "raise SystemExit(1)\n"))
    await backend.start(LAUNCH)
    async with asyncio.timeout(10):
        while (await backend.inspect(LAUNCH)).phase is not Phase.GONE:
            await asyncio.sleep(0.02)


async def test_a_program_that_is_not_there_is_a_fault_of_the_settings() -> None:
    backend = LocalBackend("owner-none", Program(("/nowhere/ollama",), simulated=False))

    with pytest.raises(SpecError, match="no program '/nowhere/ollama'"):
        await backend.start(LAUNCH)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux' own")
async def test_on_linux_the_program_dies_with_the_proxy(tmp_path: Path) -> None:
    parent = await _start_in_another_process(tmp_path, "owner-linux", has_prctl=True)
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(5):
        while tagged("owner-linux"):
            await asyncio.sleep(0.02)


async def test_a_program_that_outlived_its_proxy_is_adopted_or_stopped(
    tmp_path: Path,
) -> None:
    parent = await _start_in_another_process(tmp_path, "owner-else", has_prctl=False)
    parent.kill()
    await parent.wait()
    backend = LocalBackend("owner-else", choose_program(None, "always"))

    assert list(await backend.owned()) == [LAUNCH]
    await backend.start(LAUNCH)
    assert (await backend.inspect(LAUNCH)).phase is Phase.RUNNING
    assert len(tagged("owner-else")) == 1
    await backend.stop(LAUNCH)
    assert tagged("owner-else") == []


async def _start_in_another_process(
    tmp_path: Path, owner_id: str, *, has_prctl: bool
) -> asyncio.subprocess.Process:
    """Have another process start the simulator; return that process.

    Without ``has_prctl`` as on macOS: what it started outlives it.
    """
    path = tmp_path / "parent.py"
    path.write_text(
        "import asyncio\n"
        "from ollama_proxy.backends import local\n"
        "async def main():\n"
        "    program = local.choose_program(None, 'always')\n"
        f"    {'' if has_prctl else 'local._PRCTL = None'}\n"
        f"    backend = local.LocalBackend({owner_id!r}, program)\n"
        f"    await backend.start({LAUNCH!r})\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, str(path), cwd=Path(__file__).parents[2]
    )
    async with asyncio.timeout(10):
        while not tagged(owner_id):
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    return parent


async def test_processes_of_other_owners_are_not_ours(tmp_path: Path) -> None:
    environment = os.environ | {OWNER_VARIABLE: "somebody", LAUNCH_VARIABLE: LAUNCH}
    other = await asyncio.create_subprocess_exec("sleep", "60", env=environment)
    try:
        backend = LocalBackend("us", choose_program(None, "always"))
        await backend.stop(LAUNCH)

        assert not await backend.owned()
        assert other.returncode is None
    finally:
        other.kill()
        await other.wait()


def test_without_ollama_the_simulator_is_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert choose_program(None, "auto").simulated


def test_with_ollama_on_the_path_it_is_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "ollama"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert choose_program(None, "auto") == Program((str(program), "serve"), False)
    assert choose_program(None, "always").simulated


async def test_the_variables_of_an_offer_win_over_those_of_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OLLAMA_NUM_PARALLEL", "2")
    program = Program((sys.executable, "-c", "import time; time.sleep(60)"), False)
    given = {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_KEEP_ALIVE": "5m"}
    backend = LocalBackend("0123456789abcdef", program, environment=given)
    await backend.start(LAUNCH)
    process = psutil.Process(backend._children[LAUNCH].pid)
    found = process.environ()
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert found.items() >= given.items()


async def test_a_second_program_deletes_nothing_that_the_first_may_be_pulling() -> None:
    program = Program((sys.executable, "-c", "import time; time.sleep(60)"), False)
    backend, second = LocalBackend("0123456789abcdee", program), LaunchId("l01")
    told: list[str | None] = []
    for launch_id in (LAUNCH, second):
        await backend.start(launch_id)
        process = psutil.Process(backend._children[launch_id].pid)
        told.append(process.environ().get("OLLAMA_NOPRUNE"))
    for launch_id in (LAUNCH, second):
        await backend.stop(launch_id)
    await backend.aclose()

    assert told == [None, "true"]
