"""``python -m bench.scaling``: our law of how many beside its rivals."""

import statistics
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from bench.scaling.arrivals import Trace, trace, trace_names
from bench.scaling.clairvoyant import Schedule, cost_at, frontier, schedules
from bench.scaling.laws import FixedLaw, OneLaw, OurLaw
from bench.scaling.machines import Scenario
from bench.scaling.report import OWN, tables, write
from bench.scaling.rivals import (
    KnativeLaw,
    KubeAiLaw,
    RayServeLaw,
    RunPodLaw,
    SkyServeLaw,
)
from bench.scaling.score import Bound, Row, row
from bench.scaling.world import Law, play

_BOOTS_S = (20.0, 60.0, 120.0, 300.0, 500.0)
_SLOTS = (1, 4, 8)
_SCENARIOS = (
    *((boot_s, slots, 0.0) for boot_s in _BOOTS_S for slots in _SLOTS),
    *((boot_s, 4, 0.2) for boot_s in _BOOTS_S),
)
_QUICK = ("rhythm-hobbyist", "rhythm-agents")
_QUICK_SCENARIOS = ((20.0, 1, 0.0), (300.0, 4, 0.2))


def laws(service_s: float) -> dict[str, Callable[[Scenario], Law]]:
    """Return how each law is made, by its name."""
    return {
        OWN: OurLaw,
        "Knative": lambda _: KnativeLaw(),
        "KubeAI": lambda _: KubeAiLaw(),
        "Ray Serve": lambda _: RayServeLaw(),
        "SkyServe": lambda _: SkyServeLaw(service_s),
        "RunPod": lambda _: RunPodLaw(),
        "never more than 1": lambda _: OneLaw(),
        "fixed 1": lambda _: FixedLaw(),
    }


def compare(subject: Trace, scenario: Scenario) -> list[Row]:
    """Play each law in one scenario."""
    service_s = statistics.fmean(service for _, service in subject.arrivals)
    return [
        row(subject.name, scenario, name, play(subject, scenario, make(scenario)))
        for name, make in laws(service_s).items()
    ]


def bound(made: Sequence[Schedule], scenario: Scenario, own: Row) -> Bound:
    """Return ours as a multiple of what a clairvoyant pays for the same waiting."""
    free = frontier(made, scenario.boot_s)
    kept = frontier(made, scenario.boot_s, scenario.idle_timeout_s)
    machine_s = own.machine_h * 3600.0
    return Bound(
        trace=own.trace,
        boot_s=own.boot_s,
        slots=own.slots,
        free=machine_s / cost_at(free, own.wait_mean),
        bound_by_setting=machine_s / cost_at(kept, own.wait_mean),
    )


def play_all(
    subject: Trace, scenarios: Sequence[tuple[float, int, float]]
) -> tuple[list[Row], list[Bound]]:
    """Play a trace in each scenario; the clairvoyant where no boot fails."""
    rows: list[Row] = []
    bounds: list[Bound] = []
    made: dict[int, list[Schedule]] = {}
    for boot_s, slots, fails in scenarios:
        scenario = Scenario(boot_s=boot_s, slots=slots, fails=fails)
        played = compare(subject, scenario)
        rows += played
        if fails:
            continue
        if slots not in made:
            made[slots] = schedules(subject, slots, scenario.max_instances)
        own = next(one for one in played if one.law == OWN)
        bounds.append(bound(made[slots], scenario, own))
    return rows, bounds


def main(
    *,
    quick: Annotated[bool, typer.Option(help="two traces and scenarios only")] = False,
    only: Annotated[str, typer.Option(help="traces, with commas")] = "",
    store: Annotated[bool, typer.Option(help="write results and the page")] = True,
) -> None:
    """Play the traces under each law and tell cost beside waiting."""
    names = only.split(",") if only else [*_QUICK] if quick else trace_names()
    rows: list[Row] = []
    bounds: list[Bound] = []
    for name in names:
        subject = trace(name)
        found = play_all(subject, _QUICK_SCENARIOS if quick else _SCENARIOS)
        rows += found[0]
        bounds += found[1]
        typer.echo(f"{name}: {len(subject.arrivals)} requests", err=True)
    typer.echo(tables(rows, bounds))
    if store and not quick and not only:
        write(rows, bounds)


if __name__ == "__main__":
    typer.run(main)
