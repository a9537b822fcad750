"""Measure the machine: processors, memory, graphics cards, its own addresses."""

import asyncio
import contextlib
import socket
from dataclasses import asdict, dataclass
from typing import Any

import psutil

_GPU_S = 5.0
_KILL_S = 1.0
_MIB = 1 << 20
_MOST_GPUS = 16
_COLUMNS = ("utilization.gpu", "memory.used", "memory.total", "name")
_NVIDIA = (
    "nvidia-smi",
    f"--query-gpu={','.join(_COLUMNS)}",
    "--format=csv,noheader,nounits",
)
_DISCARD = 9


@dataclass(frozen=True, slots=True)
class Gpu:
    """Describes a graphics card; memory in bytes, ``use`` from 0 to 1 or unknown."""

    name: str
    use: float | None
    memory_used: int | None
    memory_total: int | None

    def told(self) -> dict[str, Any]:
        """Return it as a beat has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Load:
    """Holds what the machine is busy with; shares from 0 to 1."""

    cpu: float
    memory: float


def measure_load() -> Load:
    """Return the use of the processors since the last call, and that of the memory."""
    return Load(
        _share(psutil.cpu_percent(None)), _share(psutil.virtual_memory().percent)
    )


def _share(percent: float) -> float:
    return round(min(max(percent / 100, 0.0), 1.0), 4)


class GpuMeter:
    """Asks ``nvidia-smi``. One that hangs in the kernel is not joined by another."""

    def __init__(
        self, command: tuple[str, ...] = _NVIDIA, *, limit_s: float = _GPU_S
    ) -> None:
        self._command = command
        self._limit_s = limit_s
        self._last: asyncio.subprocess.Process | None = None

    async def measure(self) -> list[Gpu]:
        """Return the graphics cards; none without the program, or while it hangs."""
        if self._last is not None and self._last.returncode is None:
            return []
        try:
            process = self._last = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError:
            return []
        try:
            async with asyncio.timeout(self._limit_s):
                written, _ = await process.communicate()
        except TimeoutError:
            return []
        finally:
            await _killed(process)
        return [] if process.returncode else read_gpus(written.decode(errors="replace"))


async def _killed(process: asyncio.subprocess.Process) -> None:
    """Kill a process that still runs, and wait a second for its end.

    One that waits for the kernel can't be killed before that answers.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_S):
                await process.communicate()


def read_gpus(text: str) -> list[Gpu]:
    """Return the cards of ``nvidia-smi``'s lines; ``[N/A]`` is unknown."""
    gpus = []
    for line in text.splitlines()[:_MOST_GPUS]:
        parts = [part.strip() for part in line.split(",", 3)]
        if len(parts) < len(_COLUMNS):
            continue
        use, used, total, name = parts
        share, used_mib, total_mib = (_number(part) for part in (use, used, total))
        gpus.append(
            Gpu(
                name,
                None if share is None else _share(share),
                None if used_mib is None else used_mib * _MIB,
                None if total_mib is None else total_mib * _MIB,
            )
        )
    return gpus


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None


def own_address(family: socket.AddressFamily, hub: str | None) -> str | None:
    """Return this machine's address on the way to the hub's address of a family.

    None without one: a hub that asks from a family that its name does not have is
    refused, so it learns no address of that family.
    """
    if hub is None:
        return None
    try:
        # A datagram socket that connects sends nothing: the system only chooses the
        # address that a packet would leave from.
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect((hub, _DISCARD))
            return str(asked.getsockname()[0]).partition("%")[0]
    except OSError:
        return None
