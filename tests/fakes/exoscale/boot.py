"""How long a boot takes on the fake: the steps' durations, and two orders of them.

No duration was measured by this project, which has no live account. Each says whether
it is published or assumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """Where a duration is from."""

    PUBLISHED = "published"
    ESTIMATED = "published estimate"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Duration:
    """How long one thing takes, in seconds, and the source of that."""

    seconds: float
    grade: Grade
    source: str


DURATIONS = {
    "running": Duration(
        45.0, Grade.PUBLISHED, "create to `running` took 30-60 s on live accounts"
    ),
    "booting": Duration(20.0, Grade.ASSUMED, "kernel and cloud-init until user data"),
    "update": Duration(10.0, Grade.ASSUMED, "one `apt-get update`"),
    "guard": Duration(15.0, Grade.ASSUMED, "Caddy's package, and its start"),
    "driver": Duration(90.0, Grade.ESTIMATED, "modules built by the archive: 1-2 min"),
    "docker": Duration(30.0, Grade.ASSUMED, "Docker's packages"),
    "toolkit": Duration(20.0, Grade.ASSUMED, "NVIDIA's toolkit, Docker restarted"),
    "image": Duration(
        150.0, Grade.ESTIMATED, "container 3-4 min more than none, less the packages"
    ),
    "archive": Duration(90.0, Grade.ESTIMATED, "Ollama without a container: 1-2 min"),
    "start": Duration(5.0, Grade.ASSUMED, "Ollama's start"),
    "pull": Duration(
        45.0, Grade.ESTIMATED, "20 GB at 1 Gbit/s in 3 min, so 5 GB of an 8B model"
    ),
}
SLOWER = 1.25
"""Assumed: what runs side by side shares disk and network, and takes longer for it."""

PUBLISHED_WHOLE_S = 530.0
"""Stock Ubuntu 24.04, A5000, driver, Docker, image and model, in order: 8 min 50 s to a
ready model, measured by others on a live account. The old order should be near it."""


@dataclass(frozen=True, slots=True)
class Boot:
    """The guard's answers during a boot, by seconds since the instance runs.

    ``words``: of ``/-/stage``, each with its beginning. ``marks``: lines of
    ``/-/stages``. ``pull_s``: how long the proxy's own pull takes after it.
    """

    words: Sequence[tuple[str, float]]
    marks: Sequence[tuple[str, float]]
    pull_s: float

    def word_at(self, seconds: float) -> str:
        """Return the stage; before the guard listens there is none: empty."""
        words = [word for word, begun_s in self.words if begun_s <= seconds]
        return words[-1] if words else ""

    def told_at(self, seconds: float) -> str:
        """Return the body of ``/-/stages``."""
        lines = [f"{name} {at:.0f}\n" for name, at in self.marks if at <= seconds]
        return "".join(lines)

    @property
    def ready_s(self) -> float:
        """When the guard says ``ready``."""
        return self.words[-1][1]


def _seconds(*names: str) -> float:
    return sum(DURATIONS[name].seconds for name in names)


def one_after_the_other() -> Boot:
    """Return the former boot: Docker, a list update per step, nothing in parallel."""
    steps = [
        ("guard", _seconds("update", "guard")),
        ("driver", _seconds("update", "driver")),
        ("docker", _seconds("update", "docker")),
        ("toolkit", _seconds("update", "toolkit", "update")),
        ("ollama", _seconds("image", "start")),
    ]
    at = _seconds("booting")
    words, marks = [], [("booting", 0.0)]
    for name, length_s in steps:
        words.append((name, at))
        marks += [(name, at), (f"{name}.end", at + length_s)]
        at += length_s
    words, marks = [*words[1:], ("ready", at)], [*marks, ("ready", at)]
    return Boot(words, marks, _seconds("pull"))


def side_by_side() -> Boot:
    """Return the boot as it is: Ollama and the model come while the driver does."""
    guard = _seconds("booting")
    begin = guard + _seconds("update", "guard")
    driver_end = begin + SLOWER * _seconds("driver")
    ollama_end = begin + SLOWER * _seconds("archive")
    fetched = max(driver_end, ollama_end)
    ready = fetched + _seconds("start")
    slack_s = max(0.0, driver_end - ollama_end - _seconds("start"))
    pulled_s = min(_seconds("pull"), slack_s / SLOWER)
    marks = [
        ("booting", 0.0),
        ("guard", guard),
        ("guard.end", begin),
        ("ollama", begin),
        ("driver", begin),
        ("ollama.end", ollama_end),
        *([("model", ollama_end)] if slack_s else []),
        ("driver.end", driver_end),
        ("ready", ready),
    ]
    marks.sort(key=lambda mark: mark[1])
    words = [("driver", begin), ("ollama", driver_end), ("ready", ready)]
    return Boot(words, marks, _seconds("pull") - pulled_s)
