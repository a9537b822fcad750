"""Write the results as JSON, as tables, and as a picture."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.scaling.score import Bound, Row, Total, duels, geometric_mean, total

FOLDER = Path(__file__).parents[1] / "results"
PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
OWN = "ours"
_BEGIN, _END = "<!-- results -->", "<!-- end of results -->"
_SHOWN_LOSSES = 12


def tables(rows: Sequence[Row], bounds: Sequence[Bound]) -> str:
    """Return the tables of docs/scaling.md."""
    parts = [_by_boot(rows), _duels(rows)]
    if bounds:
        parts.append(_bounds(bounds))
    return "\n\n".join(parts)


def write(rows: Sequence[Row], bounds: Sequence[Bound]) -> None:
    """Write ``scaling.json`` and ``scaling.svg``, and the tables into the page."""
    from bench.scaling.picture import draw  # noqa: PLC0415 - matplotlib, only where it is used

    FOLDER.mkdir(exist_ok=True)
    data = {
        "runs": [_rounded(one) for one in rows],
        "clairvoyant": [_rounded(one) for one in bounds],
    }
    text = json.dumps(data, separators=(",", ":"))
    (FOLDER / "scaling.json").write_text(text.replace("},{", "},\n{") + "\n", "utf-8")
    draw(rows, FOLDER / "scaling.svg")
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    told = f"{before}{_BEGIN}\n\n{tables(rows, bounds)}\n\n{_END}{after}"
    PAGE.write_text(told, "utf-8")


def _rounded(one: Row | Bound) -> dict[str, object]:
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in asdict(one).items()
    }


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def _cells(sum_: Total) -> list[str]:
    return [
        f"{sum_.machine_h:,.0f}",
        f"{sum_.starts:,}",
        f"{sum_.wait_mean:.1f}",
        f"{sum_.wait_p95:.0f}",
        f"{sum_.wait_p99:.0f}",
        f"{100 * sum_.lost:.2f}",
    ]


def _by_boot(rows: Sequence[Row]) -> str:
    """Return a table per share of failing boots: all traces and slots together."""
    head = (
        "boot, law",
        "machine-hours",
        "starts",
        "mean s",
        "p95 s",
        "p99 s",
        "lost %",
    )
    parts: list[str] = []
    for fails in sorted({one.fails for one in rows}):
        chosen = [one for one in rows if one.fails == fails]
        lines = [
            (f"{boot_s:.0f} s, {_bold(law)}", *_cells(total(found)))
            for boot_s in sorted({one.boot_s for one in chosen})
            for law in dict.fromkeys(one.law for one in chosen)
            if (found := [r for r in chosen if r.boot_s == boot_s and r.law == law])
        ]
        slots = ", ".join(str(one) for one in sorted({r.slots for r in chosen}))
        parts.append(
            f"{100 * fails:.0f} % of the boots fail; {slots} slots, all traces:\n\n"
            + _table(head, lines)
        )
    return "\n\n".join(parts)


def _bold(law: str) -> str:
    return f"**{law}**" if law == OWN else law


def _duels(rows: Sequence[Row]) -> str:
    """Return which law beats which on both cost and mean waiting."""
    found = duels(rows, OWN)
    lines = [
        (law, str(len(lost)), str(won), str(of))
        for law, (lost, won, of) in found.items()
    ]
    table = _table(
        (
            "rival",
            "is cheaper *and* waits less than ours",
            "ours than it",
            "comparisons",
        ),
        lines,
    )
    losses = [one for lost, _, _ in found.values() for one in lost]
    ours = {one.scenario: one for one in rows if one.law == OWN}
    told = [_loss(one, ours[one.scenario]) for one in losses[:_SHOWN_LOSSES]]
    if len(losses) > _SHOWN_LOSSES:
        told.append(f"- and {len(losses) - _SHOWN_LOSSES} more, in scaling.json")
    if not told:
        return table
    return "\n".join((table, "", "Where a rival is better on both:", "", *told))


def _loss(rival: Row, own: Row) -> str:
    return (
        f"- {rival.law}, `{rival.trace}`, boot {rival.boot_s:.0f} s,"
        f" {rival.slots} slots, {100 * rival.fails:.0f} % fail:"
        f" {rival.machine_h:.1f} h and {rival.wait_mean:.1f} s,"
        f" ours {own.machine_h:.1f} h and {own.wait_mean:.1f} s"
    )


def _bounds(bounds: Sequence[Bound]) -> str:
    """Return ours as a multiple of a clairvoyant's cost, at the same mean waiting."""
    lines = []
    for boot_s in sorted({one.boot_s for one in bounds}):
        for slots in sorted({one.slots for one in bounds}):
            found = [o for o in bounds if (o.boot_s, o.slots) == (boot_s, slots)]
            by_setting = [one.bound_by_setting for one in found]
            worst = max(found, key=lambda one: one.bound_by_setting)
            free = [one.free for one in found]
            lines.append(
                (
                    f"{boot_s:.0f} s, {slots}",
                    f"{geometric_mean(by_setting):.2f}",
                    f"{worst.bound_by_setting:.2f} (`{worst.trace}`)",
                    f"{statistics.median(free):.2f}",
                    f"{max(free):.2f}",
                )
            )
    head = (
        "boot, slots",
        "same idle time-out: mean",
        "worst",
        "free to stop the last: median",
        "worst",
    )
    return "Cost as a multiple of a clairvoyant's at equal waiting:\n\n" + _table(
        head, lines
    )
