"""Draw the picture of the results that docs/benchmarks.md shows."""

import statistics
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bench.report import Results

_PANELS = (
    ("cpu_us_per_token", "CPU per token, µs"),
    ("token_p99_ms", "latency per token p99, ms"),
    ("first_p50_ms", "first of 1 000 streams' tokens p50, ms"),
    ("cpu_us_per_request", "CPU per small request, µs"),
)
_SHOWN = ("nginx", "haproxy", "ours", "aiohttp", "litellm")
_OWN, _OTHER = "#d9480f", "#868e96"


def draw(results: Results, path: Path) -> None:
    """Draw a bar per proxy and figure: the median, with least and most."""
    figure, panels = plt.subplots(1, len(_PANELS), figsize=(13, 2.8))
    for axes, (name, title) in zip(panels, _PANELS, strict=True):
        _bars(axes, results, name, title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axes: Axes, results: Results, name: str, title: str) -> None:
    shown = [proxy for proxy in _SHOWN if results.of(proxy, name)]
    middles = [statistics.median(results.of(proxy, name)) for proxy in shown]
    least = [m - min(results.of(p, name)) for p, m in zip(shown, middles, strict=True)]
    most = [max(results.of(p, name)) - m for p, m in zip(shown, middles, strict=True)]
    colours = [_OWN if proxy == "ours" else _OTHER for proxy in shown]
    bars = axes.barh(shown, middles, xerr=[least, most], color=colours, capsize=2)
    axes.bar_label(bars, fmt="%.3g", padding=4, fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.set_xscale("log")
    axes.set_xlabel("log scale", fontsize=7)
    axes.margins(x=0.25)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
