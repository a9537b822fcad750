"""Measure what a key costs a small request."""

import asyncio
import os
import random
import statistics
import sys
from pathlib import Path

from bench.proxies import KINDS, ROOT, free_port, process, running, upstream_command
from bench.scenarios import Figures, Load, small

_TURNS = 5
_RNG = random.Random(0)  # noqa: S311 - nothing is drawn


async def keyed(folder: Path, load: Load) -> Figures:
    """Small requests to a proxy without keys, and with a key to another, in turns.

    The ratio is the median of the turns: other work of the machine shows in both.
    """
    port = free_port()
    async with (
        process(upstream_command(port), folder / "upstream"),
        running("ours", port, folder / "without") as without,
        running("ours", port, folder / "with") as with_key,
    ):
        environment = KINDS["ours"].environment(with_key.port, port, folder / "with")
        header = f"Authorization: Bearer {await _new_key(dict(environment))}"
        costs = []
        for _ in range(_TURNS):
            bare = await small(without, load, _RNG)
            own = await small(with_key, load, _RNG, header)
            costs.append((bare["cpu_us_per_request"], own["cpu_us_per_request"]))
    return {
        "keyless_cpu_us": statistics.median(bare for bare, _ in costs),
        "keyed_cpu_us": statistics.median(own for _, own in costs),
        "keyed_cpu_ratio": statistics.median(own / bare for bare, own in costs),
    }


async def _new_key(environment: dict[str, str]) -> str:
    """Make a key that may use all models, without limits, and return its text."""
    command = (sys.executable, "-m", "ollama_proxy", "key", "add", "bench", "--yes")
    one = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, errors = await one.communicate()
    if one.returncode != 0:
        raise RuntimeError(f"no key was made: {errors.decode()}")
    return told.decode().strip()
