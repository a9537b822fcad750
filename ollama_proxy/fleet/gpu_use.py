"""Tell whether a loaded model uses the GPU.

Where the driver does not work, Ollama loads the model into main memory without an
error. Only ``size_vram`` in ``/api/ps`` shows it: 0 for a model on the CPU, equal to
``size`` for a model wholly on the GPU (``server/routes.go``, v0.33).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
import structlog

from ollama_proxy.base import log
from ollama_proxy.core.lifecycle.record import Fault
from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.ollama.model_names import full_model_name

_WHOLE = 0.995  # shares are rounded in `/status`
_LARGEST = 2**63


class GpuCheck(StrEnum):
    """Says what a model that is not on the GPU means for its launch."""

    WARN = "warn"
    FAIL = "fail"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class GpuUse:
    """Says where a loaded model is: ``size`` bytes in all, ``size_vram`` on the GPU."""

    model: str
    size: int
    size_vram: int

    @property
    def used(self) -> bool:
        """Tell whether any of it is on a GPU."""
        return self.size_vram > 0

    @property
    def share(self) -> float:
        """Return how much of it is on a GPU, 0–1."""
        return round(min(1.0, self.size_vram / self.size), 3)


def read_gpu_use(body: bytes, model: str) -> GpuUse | None:
    """Return where a model is by the body of ``/api/ps``; None if it does not tell."""
    try:
        answer = msgspec.json.decode(body)
    except UNREADABLE:
        return None
    entries = answer.get("models") if isinstance(answer, dict) else None
    wanted = full_model_name(model)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and _is_named(entry, wanted):
            return _use(entry, model)
    return None


def _is_named(entry: dict[str, Any], wanted: str) -> bool:
    names = (entry.get("name"), entry.get("model"))
    return any(isinstance(one, str) and full_model_name(one) == wanted for one in names)


def _use(entry: dict[str, Any], model: str) -> GpuUse | None:
    size, size_vram = entry.get("size"), entry.get("size_vram", 0)
    for value in (size, size_vram):
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        if not 0 <= value < _LARGEST:
            return None
    assert isinstance(size, int)  # noqa: S101 - just seen
    return GpuUse(model, size, size_vram) if size else None


class GpuLook:
    """Keeps the latest look at the present instance's GPU, and its verdict.

    ``gpus``: how many an instance has; None: unknown, then no fault is reported.
    ``problem``: one sentence; empty if no fault is known.
    """

    def __init__(
        self, check: GpuCheck = GpuCheck.WARN, gpus: int | None = None
    ) -> None:
        self._check = check
        self._gpus = gpus
        self._log = structlog.get_logger()
        self.use: GpuUse | None = None
        self.problem = ""

    @property
    def is_on(self) -> bool:
        """Tell whether to ask: not without a GPU, nor if the settings turn it off."""
        return self._check is not GpuCheck.OFF and self._gpus != 0

    def forget(self) -> None:
        """Know nothing: another launch begins."""
        self.use, self.problem = None, ""

    def take(
        self, use: GpuUse | None, *, is_meant: bool, is_ours: bool
    ) -> Fault | None:
        """Judge a look after a load; return the fault if it makes the launch fail.

        ``is_meant``: a client asked for less than the whole model on the GPU.
        ``is_ours``: the proxy has just loaded the model, before any client did.
        """
        self.use, self.problem = use, ""
        if use is None or is_meant or self._gpus is None or use.share >= _WHOLE:
            return None
        self.problem = _problem(use)
        self._log.warning(
            log.GPU_UNUSED,
            model=use.model,
            size=use.size,
            size_vram=use.size_vram,
            problem=self.problem,
        )
        fails = self._check is GpuCheck.FAIL and not use.used and is_ours
        return Fault("gpu", self.problem) if fails else None

    def body(self) -> dict[str, Any] | None:
        """Return the part of ``/status`` about the GPU; None if it is not looked at."""
        if not self.is_on:
            return None
        use = self.use
        return {
            "used": None if use is None else use.used,
            "share": None if use is None else use.share,
            "model": None if use is None else use.model,
            "size": None if use is None else use.size,
            "size_vram": None if use is None else use.size_vram,
            "problem": self.problem or None,
        }


def _problem(use: GpuUse) -> str:
    if not use.used:
        return (
            f"the model {use.model!r} is in the machine's memory and none of it on the"
            " GPU, which is paid for all the same: look at the driver on the instance,"
            " or set OLLAMA_PROXY_GPU_CHECK=off if that is meant"
        )
    return (
        f"only {use.share:.0%} of the model {use.model!r} is on the GPU"
        f" ({_gb(use.size_vram)} of {_gb(use.size)} GB), so it answers slowly: take an"
        " instance with more GPU memory, a smaller model or a shorter context"
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f}"
