"""Results: kept unchanged, summed up as ratios, written as JSON and a picture."""

import json
import math
import platform
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ollama_proxy import __version__

FOLDER = Path(__file__).parent / "results"
_ROUND = 100
_CPU, _REQUESTS, _QUARTER = 1.15, 12_000, 0.25
_ORDER = ("direct", "nginx", "haproxy", "ours", "aiohttp", "litellm")


@dataclass(frozen=True, slots=True)
class Budget:
    """Holds a promise. ``kept`` gets a figure of ours and its ratio to nginx's."""

    text: str
    figure: str
    kept: Callable[[float, float], bool]


def _at_most(bound: float) -> Callable[[float, float], bool]:
    return lambda own, _ratio: own <= bound


BUDGETS = (
    Budget("CPU per token ≤ 1.15 nginx", "cpu_us_per_token", lambda _, r: r <= _CPU),
    Budget("latency per token p99 ≤ nginx", "token_p99_ms", lambda _, r: r <= 1),
    Budget(
        "small requests per second of a core ≥ 12 000 or ¼ nginx",
        "requests_per_cpu_s",
        lambda own, r: own >= _REQUESTS or r >= _QUARTER,
    ),
    Budget("KiB per stream, 2 000 open ≤ 40", "kib_per_stream_of_2000", _at_most(40)),
    Budget("KiB per stream, 10 000 open ≤ 40", "kib_per_stream_of_10000", _at_most(40)),
    Budget("2 GB upload: MiB more ≤ 16", "upload_grows_mib", _at_most(16)),
    Budget("500 MB line: MiB more ≤ 16", "line_grows_mib", _at_most(16)),
    Budget("ready → first held byte ≤ 250 ms", "ready_to_first_byte_ms", _at_most(250)),
    Budget("503 asleep, 5 000/s, p99 ≤ 6 ms", "asleep_503_p99_ms", _at_most(6)),
    Budget("list asleep, 5 000/s, p99 ≤ 6 ms", "asleep_tags_p99_ms", _at_most(6)),
    Budget("CPU with a key ≤ 1.1 without", "keyed_cpu_ratio", _at_most(1.1)),
    Budget("idle process ≤ 70 MiB", "idle_mib", _at_most(70)),
)
"""What was promised, as DESIGN has it."""


@dataclass(slots=True)
class Results:
    """Holds every figure of every round, by proxy and name; and what did not run."""

    figures: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, proxy: str, figures: Mapping[str, float]) -> None:
        """Keep the figures of one run."""
        for name, value in figures.items():
            self.figures[proxy][name].append(value)

    def note(self, proxy: str, text: str) -> None:
        """Keep why a proxy has no figures."""
        self.notes[proxy] = text

    def of(self, proxy: str, figure: str) -> list[float]:
        """Return the values of a figure, one per run."""
        return self.figures.get(proxy, {}).get(figure, [])

    def ratios(self, figure: str, proxy: str, base: str) -> list[float]:
        """Return a proxy's figure in parts of another's, run by run."""
        pairs = zip(self.of(proxy, figure), self.of(base, figure), strict=False)
        return [own / other for own, other in pairs if other]


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < _ROUND else f"{value:.0f}"


def _spread(values: list[float]) -> str:
    if not values:
        return "–"
    middle = statistics.median(values)
    numbers = (_short(value) for value in (middle, min(values), max(values)))
    return "{} [{}–{}]".format(*numbers)


def is_met(budget: Budget, results: Results) -> bool | None:
    """Tell whether the median keeps a promise; None if it was not measured."""
    values = results.of("ours", budget.figure)
    if not values:
        return None
    ratios = results.ratios(budget.figure, "ours", "nginx")
    ratio = statistics.median(ratios) if ratios else math.nan
    return budget.kept(statistics.median(values), ratio)


def summary(results: Results) -> str:
    """Return promises and figures as Markdown: the median, and [least–most]."""
    kept = {True: "yes", False: "**no**", None: "not measured"}
    promises = [
        (
            budget.text,
            _spread(results.of("ours", budget.figure)),
            _spread(results.of("nginx", budget.figure)),
            _spread(results.ratios(budget.figure, "ours", "nginx")),
            kept[is_met(budget, results)],
        )
        for budget in BUDGETS
    ]
    shown = [proxy for proxy in _ORDER if proxy in results.figures]
    names = sorted({name for figures in results.figures.values() for name in figures})
    figures = [
        (f"`{name}`", *(_spread(results.of(proxy, name)) for proxy in shown))
        for name in names
    ]
    return "\n".join(
        (
            *_table(("promise", "ours", "nginx", "ours / nginx", "kept"), promises),
            "",
            *_table(("figure", *shown), figures),
            "",
            *(f"{proxy}: {text}" for proxy, text in sorted(results.notes.items())),
        )
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] * len(head)
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


def _machine() -> dict[str, str | int]:
    return {
        "processor": platform.processor() or platform.machine(),
        "processors": psutil.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 1024**3),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "ollama_proxy": __version__,
    }


def write(results: Results) -> None:
    """Write ``results.json``, ``results.md`` and ``results.png``."""
    from bench.picture import draw  # noqa: PLC0415 - matplotlib, only where it is used

    FOLDER.mkdir(exist_ok=True)
    data = {
        "machine": _machine(),
        "budgets": {one.text: is_met(one, results) for one in BUDGETS},
        "figures": results.figures,
        "notes": results.notes,
    }
    told = json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True)
    (FOLDER / "results.json").write_text(f"{told}\n", "utf-8")
    machine = ", ".join(f"{key} {value}" for key, value in _machine().items())
    page = f"# The last run of `make bench`\n\n{machine}\n\n{summary(results)}\n"
    (FOLDER / "results.md").write_text(page, "utf-8")
    draw(results, FOLDER / "results.png")
