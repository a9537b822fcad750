"""A boot with durations, on the fake: in the former order and in the present one.

``python -m tests.backends.exoscale.test_boot_durations`` prints both. The gain is one
on the fake: its durations are published by others, or assumed.
"""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.base.log import configure
from tests.backends.exoscale.rig import exoscale_rig
from tests.fakes.exoscale.boot import (
    DURATIONS,
    PUBLISHED_WHOLE_S,
    SLOWER,
    Boot,
    one_after_the_other,
    side_by_side,
)
from tests.fakes.exoscale.cloud import Timing
from tests.proxy import running_proxy
from tests.virtual_time import JumpingClock, pass_time

_STEP_S = 1.0  # of the fake's time, at each turn
# Twice as fast, what the proxy does between two looks took 60 s of the fake's time on a
# machine whose processors others used.
_TURN_S = 0.008


@contextlib.asynccontextmanager
async def passing(clock: JumpingClock) -> AsyncIterator[None]:
    """Let time pass about a hundred times as fast."""
    task = asyncio.ensure_future(pass_time(clock, _STEP_S, every_s=_TURN_S))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def played(folder: Path, boot: Boot) -> dict[str, Any]:
    """Return ``/status`` once a proxy has brought up an instance that boots so."""
    timing = Timing(boot_s=DURATIONS["running"].seconds)
    async with exoscale_rig(folder / "cloud", timing) as rig:
        rig.guests.boot, rig.guests.models = boot, ()
        async with running_proxy(
            folder / "proxy", backend=rig.open(), clock=rig.clock, OLLAMA_MODEL="tiny"
        ) as proxy:
            async with passing(rig.clock):
                await proxy.parts.pool.wake()
                await proxy.until(lambda: proxy.state == "ready", within_s=60.0)
                status = await proxy.status()
            proxy.parts.pool.stop()
            await proxy.until(lambda: not rig.cloud.paid)
    status["whole_s"] = sum(one["seconds"] for one in status["stages"])
    return status


@pytest.mark.parametrize("order", [one_after_the_other, side_by_side])
async def test_what_is_told_is_what_was_played(
    order: Callable[[], Boot], tmp_path: Path
) -> None:
    boot = order()
    status = await played(tmp_path, boot)
    told = {one["stage"]: one["seconds"] for one in status["instance_stages"]}
    seen = {one["stage"]: one["seconds"] for one in status["stages"]}
    ends = dict(boot.marks)

    for name in ("guard", "driver", "ollama"):
        assert told[name] == pytest.approx(ends[f"{name}.end"] - ends[name], abs=1.0)
    assert seen["pulling"] == pytest.approx(boot.pull_s, abs=20.0)
    whole_s = DURATIONS["running"].seconds + boot.ready_s + boot.pull_s
    assert whole_s <= status["whole_s"] <= whole_s + 60.0  # looks are so far apart


async def test_side_by_side_is_sooner_than_one_after_the_other(tmp_path: Path) -> None:
    before = await played(tmp_path / "before", one_after_the_other())
    after = await played(tmp_path / "after", side_by_side())

    assert after["whole_s"] < before["whole_s"] * 0.75


def test_the_old_order_is_near_what_others_measured() -> None:
    boot = one_after_the_other()
    whole_s = DURATIONS["running"].seconds + boot.ready_s + boot.pull_s

    assert whole_s == pytest.approx(PUBLISHED_WHOLE_S, rel=0.15)


def test_the_docs_tell_each_duration_and_where_it_is_from() -> None:
    told = (Path(__file__).parents[3] / "docs/exoscale.md").read_text()

    for name, one in DURATIONS.items():
        assert f"| {name} | {one.seconds:.0f} | {one.grade} | {one.source} |" in told


def test_every_duration_says_where_it_is_from() -> None:
    assert all(one.seconds > 0 and one.source for one in DURATIONS.values())


def _lines(title: str, status: dict[str, Any]) -> list[str]:
    lines = [f"{title}: {status['whole_s']:.0f} s from the wake to ready"]
    for key in ("stages", "instance_stages"):
        words = [f"{one['stage']} {one['seconds']:.0f}" for one in status[key]]
        lines.append(f"  {key}: {', '.join(words)}")
    return lines


def main() -> None:
    """Print both orders, and what they are made of."""
    lines = ["On the project's fake; no duration was measured by this project."]
    for name, one in DURATIONS.items():
        lines.append(f"  {name:8} {one.seconds:4.0f} s  {one.grade}: {one.source}")
    lines.append(f"  side by side: times {SLOWER}, assumed")
    orders = {"before": one_after_the_other(), "after": side_by_side()}
    for title, boot in orders.items():
        with tempfile.TemporaryDirectory() as folder:
            lines += _lines(title, asyncio.run(played(Path(folder), boot)))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    configure("error")
    main()
