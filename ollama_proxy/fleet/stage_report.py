"""Tell how long the stages of a launch took: in the log, to metrics, to estimates."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.lifecycle.boot_stages import StageSpan, Timeline, told_spans
from ollama_proxy.core.lifecycle.record import Record, State


class StageCounts(Protocol):
    """Counts the stages of launches."""

    def observe_stage(self, backend: str, stage: str, seconds: float) -> None:
        """Count a stage by its length."""


class StageLearner(Protocol):
    """Learns from launches."""

    def add(self, offer: str, stages: Mapping[str, float]) -> None:
        """Take in a launch that became ready. Raises `StoreError`."""


class StageReport:
    """Reports each launch of one controller once it is ready.

    A launch that a restarted proxy took up in the middle has no full timings, so it is
    skipped.
    """

    def __init__(
        self,
        backend: str,
        timeline: Timeline,
        *,
        counts: StageCounts,
        learner: StageLearner,
    ) -> None:
        self._backend = backend
        self._timeline = timeline
        self._counts = counts
        self._learner = learner
        self._log = structlog.get_logger().bind(backend=backend)

    def on_transition(self, before: Record, after: Record) -> None:
        """Take in a change of state."""
        is_ready = before.state is State.STARTING and after.state is State.READY
        if not is_ready or after.adopted or not self._timeline.is_whole:
            return
        seen, guest = self._timeline.spans(after.since), self._timeline.guest
        told = {"stages": rounded(seen)}
        if guest:
            told["instance"] = rounded(guest)
        self._log.info(log.LAUNCH_STAGES, launch_id=after.launch_id, **told)
        for name, seconds in told_spans(seen, guest).items():
            self._counts.observe_stage(self._backend, name, seconds)
        with contextlib.suppress(StoreError):
            self._learner.add(self._backend, {one.name: one.seconds for one in seen})


def rounded(spans: Sequence[StageSpan]) -> dict[str, float]:
    """Return the seconds of each stage, for people."""
    return {one.name: round(one.seconds, 1) for one in spans}


def stages_body(spans: Sequence[StageSpan]) -> list[dict[str, Any]]:
    """Return stages as ``/status`` shows them."""
    return [
        {
            "stage": one.name,
            "begun_s": round(one.begun_s, 1),
            "seconds": round(one.seconds, 1),
        }
        for one in spans
    ]
