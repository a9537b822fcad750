"""Record the stages of a launch, and how long each took. Pure.

`Timeline` has the stages that the proxy sees, one after the other; their lengths add up
to the whole launch. The stages that an instance reports of its own boot (`read_spans`)
may overlap: an image is fetched while a driver is installed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ollama_proxy.core.lifecycle.record import LaunchId, Progress, Record, Stage, State

GUEST_STEPS = ("guard", "driver", "toolkit", "docker", "ollama", "model")
"""The steps of an instance's boot, by the names that it reports."""

OTHER = "other"
STAGE_NAMES = (*(stage.value for stage in Stage), *GUEST_STEPS, OTHER)
"""Every name of a stage: a closed set, since metrics have it as a label."""

_BOOTING = Stage.BOOTING.value
_END = ".end"
_MOST_LINES = 200
_LONGEST_S = 10_000_000


@dataclass(frozen=True, slots=True)
class StageSpan:
    """Holds one stage: when it began and how long it took, in seconds.

    ``begun_s``: since the wake, or since the boot if the instance reports the stage.
    """

    name: str
    begun_s: float
    seconds: float


def stage_name(progress: Progress) -> str:
    """Return what a launch is at; of a boot its step, if the backend knows it."""
    if progress.stage is not Stage.BOOTING or not progress.step:
        return progress.stage.value
    known = progress.step in GUEST_STEPS or progress.step == _BOOTING
    return progress.step if known else OTHER


class Timeline:
    """Holds the stages of the present launch, or the last one, as the proxy saw them.

    ``is_whole``: seen from the wake on. ``guest``: the stages that the instance
    reported. Moments are those of `Clock.now`.
    """

    def __init__(self) -> None:
        self.launch_id: LaunchId | None = None
        self.is_whole = False
        self.guest: tuple[StageSpan, ...] = ()
        self._woken_at = 0.0
        self._name: str | None = None
        self._entered_at = 0.0
        self._begun: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def see(self, before: Record, after: Record, now: float) -> StageSpan | None:
        """Record a change of state; return the stage that ended with it, if any.

        A stage that occurs again, for example after a broken-off pull, counts as one.
        """
        if after.state is not State.STARTING:
            return self._leave(now)
        if after.launch_id != self.launch_id:
            self._begin(after, is_whole=after.launch_id != before.launch_id)
        name = stage_name(after.progress)
        if name == self._name:
            return None
        ended = self._leave(now)
        self._name, self._entered_at = name, now
        self._begun.setdefault(name, now)
        return ended

    def _begin(self, record: Record, *, is_whole: bool) -> None:
        self.launch_id, self.is_whole = record.launch_id, is_whole
        self.guest = ()
        self._name, self._woken_at = None, record.woken_at
        self._begun, self._seconds = {}, {}

    def _leave(self, now: float) -> StageSpan | None:
        if self._name is None:
            return None
        name, self._name = self._name, None
        took_s = max(0.0, now - self._entered_at)
        self._seconds[name] = self._seconds.get(name, 0.0) + took_s
        return self._span(name)

    def _span(self, name: str) -> StageSpan:
        begun_s = max(0.0, self._begun[name] - self._woken_at)
        return StageSpan(name, begun_s, self._seconds.get(name, 0.0))

    def spans(self, now: float) -> list[StageSpan]:
        """Return the stages in order; the last one so far, while it lasts."""
        found = [self._span(name) for name in self._begun]
        if self._name is None:
            return found
        running_s = self.running_s(now)
        return [
            StageSpan(one.name, one.begun_s, one.seconds + running_s)
            if one.name == self._name
            else one
            for one in found
        ]

    def running_s(self, now: float) -> float:
        """Return for how long the present stage has lasted since it last began."""
        return max(0.0, now - self._entered_at) if self._name is not None else 0.0


def told_spans(
    seen: Sequence[StageSpan], guest: Sequence[StageSpan]
) -> dict[str, float]:
    """Return the seconds of each stage; the instance knows better of its own."""
    told = {one.name: one.seconds for one in seen}
    return told | {one.name: one.seconds for one in guest}


def read_spans(text: str) -> tuple[StageSpan, ...]:
    """Return the stages in a guard's ``/-/stages``; skip unreadable lines.

    A line is ``NAME UPTIME`` where a stage begins, ``NAME.end UPTIME`` where it has
    ended. A stage without an end lasts until the next one begins, or ``ready``.
    """
    marks = [mark for line in text.splitlines()[:_MOST_LINES] if (mark := _mark(line))]
    spans: dict[str, StageSpan] = {}
    for index, (name, begun_s) in enumerate(marks):
        if name not in (*GUEST_STEPS, _BOOTING) or name in spans:
            continue
        later = marks[index + 1 :]
        ends = [at for other, at in later if other == name + _END]
        begins = [at for other, at in later if not other.endswith(_END)]
        if not ends and not begins:  # its length is unknown
            continue
        ended_s = ends[0] if ends else begins[0]
        spans[name] = StageSpan(name, begun_s, max(0.0, ended_s - begun_s))
    return tuple(spans.values())


def _mark(line: str) -> tuple[str, float] | None:
    words = line.split()
    if len(words) != 2 or not words[1].isascii() or not words[1].isdigit():  # noqa: PLR2004
        return None
    if len(words[1]) > len(str(_LONGEST_S)) or words[0].startswith("failed:"):
        return None
    return words[0], float(words[1])
