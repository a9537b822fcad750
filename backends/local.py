"""Run a process on this machine: ``ollama serve``, or the simulator without one.

The tag of an instance is its environment: owner id and launch id are set there before
the program runs, and every process that it starts inherits them. So an instance is
found by looking at the processes of this machine, and no file can disagree with them.

The process leads a group of its own, so that its runners end with it. On Linux it also
gets SIGTERM when the proxy dies in any way (``prctl(2)``, ``PR_SET_PDEATHSIG``);
elsewhere the next proxy adopts or stops it.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from ollama_proxy.backends.local_settings import LocalSettings
from ollama_proxy.backends.ollama_files import models_folder
from ollama_proxy.backends.ollama_store import OllamaStore
from ollama_proxy.base.errors import ProgramError, TransientError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import (
    BackendContext,
    Finding,
    Observation,
    Phase,
    Traits,
    Upstream,
)
from ollama_proxy.fleet.backend_plugin import BackendPlugin
from ollama_proxy.fleet.templates import ollama_environment

OWNER_VARIABLE = "OLLAMA_INSTANCE_OWNER"
LAUNCH_VARIABLE = "OLLAMA_INSTANCE_LAUNCH"
_HOST = "127.0.0.1"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Program:
    """Holds the command line, and whether it is the simulator."""

    command: tuple[str, ...]
    simulated: bool


class LocalBackend:
    """Runs one program per launch on a free loopback port."""

    def __init__(
        self,
        owner_id: str,
        program: Program,
        *,
        environment: Mapping[str, str] | None = None,
        stop_grace_s: float = 5.0,
    ) -> None:
        self._stop_grace_s = stop_grace_s
        self._owner_id = owner_id
        self._environment = dict(environment or {})
        self._program = program
        # A reference only: a child whose object is collected is reaped with a warning.
        self._children: dict[LaunchId, asyncio.subprocess.Process] = {}
        self._leaders: dict[LaunchId, int] = {}
        folder = models_folder(os.environ)
        self._models = None if program.simulated else OllamaStore(folder)
        self.traits = Traits(
            child_process=True,
            persistent_models=not program.simulated,
            starts_empty=program.simulated,
            models_place="simulator" if program.simulated else str(folder),
            simulated=program.simulated,
            poll_s=0.1,
            watch_s=1.0,
            location="this machine",
            instance_type="simulator" if program.simulated else "process",
        )

    def tags(self) -> bytes | None:
        """Return what ``/api/tags`` would say; None for the simulator's empty disk."""
        return None if self._models is None else self._models.tags()

    def show(self, full_name: str) -> bytes | None:
        """Return the body of ``/api/show``, as far as the disk has it."""
        return None if self._models is None else self._models.show(full_name)

    async def start(self, launch_id: LaunchId) -> None:
        """Run the program, unless a process of this launch already lives."""
        living = await asyncio.to_thread(lambda: list(self._processes()))
        if any(process.launch_id == launch_id for process in living):
            return
        environment = os.environ | ollama_environment(
            host=_HOST, port=_free_port(), given=self._environment
        )
        if living:  # at its start Ollama deletes what others may be pulling here
            environment.setdefault("OLLAMA_NOPRUNE", "true")
        environment |= {OWNER_VARIABLE: self._owner_id, LAUNCH_VARIABLE: launch_id}
        try:
            process = await asyncio.create_subprocess_exec(
                *self._program.command,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except FileNotFoundError as error:
            raise ProgramError(
                f"there is no program {self._program.command[0]!r} any more; install it"
            ) from error
        except OSError as error:
            raise TransientError(
                f"{self._program.command[0]!r} can't be run: {error.strerror}"
            ) from error
        self._children[launch_id] = process

    async def inspect(self, launch_id: LaunchId) -> Observation:
        """Look for the leader of the launch's process group."""
        leader = await asyncio.to_thread(self._known_leader, launch_id)
        if leader is None:
            processes = await asyncio.to_thread(self._find, launch_id)
            leader = next((found for found in processes if found.leads), None)
            if leader is None:
                self._leaders.pop(launch_id, None)
                if processes:
                    return Observation(Phase.PENDING)
                await self._reap(launch_id)
                return Observation(Phase.GONE)
            self._leaders[launch_id] = leader.pid
        upstream = Upstream(f"http://{leader.host}")
        return Observation(Phase.RUNNING, upstream, f"process {leader.pid}")

    async def stop(self, launch_id: LaunchId) -> None:
        """End every process of the launch: asked first, then killed."""
        await asyncio.to_thread(self._signal, launch_id, signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + self._stop_grace_s
        while await asyncio.to_thread(self._find, launch_id):
            if asyncio.get_running_loop().time() >= deadline:
                await asyncio.to_thread(self._signal, launch_id, signal.SIGKILL)
                break
            await asyncio.sleep(0.05)
        await self._reap(launch_id)

    async def owned(self) -> Collection[LaunchId]:
        """Return the launches whose processes live on this machine."""
        found = await asyncio.to_thread(lambda: list(self._processes()))
        return {process.launch_id for process in found}

    async def aclose(self) -> None:
        """Leave the processes alone: the controller has stopped what should end."""
        self._children.clear()

    async def check(self) -> list[Finding]:
        """Say what would be run."""
        what = "simulator (no `ollama` on the PATH)" if self._program.simulated else ""
        return [
            Finding("program", ok=True, detail=what or " ".join(self._program.command))
        ]

    async def _reap(self, launch_id: LaunchId) -> None:
        """Hear of our child's end, or asyncio warns when it forgets the child."""
        child = self._children.get(launch_id)
        if child is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._stop_grace_s):
                await child.wait()
            self._children.pop(launch_id, None)

    def _processes(self) -> "Iterator[_Process]":
        for process in psutil.process_iter():
            if (ours := self._describe(process)) is not None:
                yield ours

    def _describe(self, process: psutil.Process) -> "_Process | None":
        """Return a living process that carries our tag; None for any other."""
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(OWNER_VARIABLE) != self._owner_id:
                return None
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return _Process(
                pid=process.pid,
                leads=os.getpgid(process.pid) == process.pid,
                launch_id=LaunchId(environment[LAUNCH_VARIABLE]),
                host=environment.get("OLLAMA_HOST", ""),
            )
        return None

    def _known_leader(self, launch_id: LaunchId) -> "_Process | None":
        """Look at the one process that led last time, before looking at all."""
        pid = self._leaders.get(launch_id)
        if pid is None or not psutil.pid_exists(pid):
            return None
        with contextlib.suppress(psutil.Error):
            found = self._describe(psutil.Process(pid))
            if found is not None and found.leads and found.launch_id == launch_id:
                return found
        return None

    def _find(self, launch_id: LaunchId) -> "list[_Process]":
        return [found for found in self._processes() if found.launch_id == launch_id]

    def _signal(self, launch_id: LaunchId, number: signal.Signals) -> int:
        """Signal every process of the launch; return how many there were."""
        processes = self._find(launch_id)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        return len(processes)


@dataclass(frozen=True, slots=True)
class _Process:
    """Names a living process that carries our tag."""

    pid: int
    leads: bool
    launch_id: LaunchId
    host: str


def _load_prctl() -> Callable[[int, int], int] | None:
    """Return Linux' ``prctl``; loaded here, since a forked child must not load."""
    if not sys.platform.startswith("linux"):
        return None
    prctl: Callable[[int, int], int] = ctypes.CDLL(None, use_errno=True).prctl
    return prctl


_PRCTL = _load_prctl()


def _die_with_parent() -> None:
    """Ask the kernel, in the child, for SIGTERM when the proxy dies."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def choose_program(ollama_bin: str | None, simulator: str) -> Program:
    """Return ``ollama serve`` if the program is there, else the simulator."""
    found = shutil.which(ollama_bin or "ollama")
    if found is None or simulator == "always":
        command = (sys.executable, "-m", "ollama_proxy.simulator", "--from-environment")
        return Program(command, simulated=True)
    return Program((str(Path(found).absolute()), "serve"), simulated=False)


def open_backend(context: BackendContext) -> LocalBackend:
    """Build the backend from its settings."""
    settings = context.settings_of(LocalSettings)
    program = choose_program(settings.ollama_bin, settings.simulator)
    return LocalBackend(
        context.owner_id, program, environment=context.instance_environment
    )


PLUGIN = BackendPlugin(
    "local",
    LocalSettings,
    open_backend,
    has_table=False,
    inherits_environment=True,
)
