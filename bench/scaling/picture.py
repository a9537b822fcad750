"""Draw cost beside waiting, a panel per boot time."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, ScalarFormatter

from bench.scaling.score import Row, total

_COLOURS = {
    "ours": "#d9480f",
    "Knative": "#1c7ed6",
    "KubeAI": "#2b8a3e",
    "Ray Serve": "#862e9c",
    "SkyServe": "#5f3dc4",
    "RunPod": "#c2255c",
    "never more than 1": "#868e96",
}
_ALWAYS_ON = "fixed 1"
_MARKERS = {1: "o", 4: "s", 8: "^"}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw a mark per law and number of slots: all traces, no boot fails.

    The machine that always runs is left out: the others would lie on one line.
    """
    mpl.rcParams["svg.hashsalt"] = "scaling"
    sound = [one for one in rows if not one.fails and one.law != _ALWAYS_ON]
    boots = sorted({one.boot_s for one in sound})
    figure, panels = plt.subplots(
        1, len(boots), figsize=(3.1 * len(boots), 3.6), squeeze=False
    )
    for axes, boot_s in zip(panels[0], boots, strict=True):
        _panel(axes, [one for one in sound if one.boot_s == boot_s])
        axes.set_title(f"boot {boot_s:.0f} s", fontsize=10)
    panels[0][0].set_ylabel("mean waiting, s (log scale)", fontsize=8)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), fontsize=8)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    for law in dict.fromkeys(one.law for one in rows):
        label: str | None = law
        for slots, marker in _MARKERS.items():
            found = [one for one in rows if one.law == law and one.slots == slots]
            if not found:
                continue
            both = total(found)
            axes.scatter(
                both.machine_h,
                max(both.wait_mean, 0.1),
                color=_COLOURS[law],
                marker=marker,
                s=34 if law == "ours" else 20,
                label=label,
            )
            label = None
    axes.set_yscale("log")
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(ScalarFormatter())
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.set_xlabel("machine-hours; ○ 1, □ 4, △ 8 slots", fontsize=7)
    axes.tick_params(which="both", labelsize=7)
    axes.grid(visible=True, alpha=0.2)
