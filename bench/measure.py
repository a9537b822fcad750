"""Runs the scenarios: side by side in interleaved rounds, or one proxy alone."""

import random
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import typer

from bench import scenarios
from bench.keys import keyed
from bench.proxies import Running, free_port, process, running, upstream_command
from bench.report import Results
from bench.scenarios import Figures, Load

_SEED = 20

Scenario = Callable[[Running, Load, random.Random], Awaitable[Figures]]


async def measure(
    names: Sequence[str], load: Load, rounds: int, results: Results
) -> None:
    """Run everything; the rounds are interleaved, in an order drawn for each."""
    rng = random.Random(_SEED)  # noqa: S311 - the same order every time
    with tempfile.TemporaryDirectory(prefix="ollama-proxy-bench-") as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            port = free_port()
            command = upstream_command(port)
            await stack.enter_async_context(process(command, folder / "upstream"))
            proxies = [Running("direct", port, None)]
            for kind in names:
                one = running(kind, port, folder / kind)
                try:
                    proxies.append(await stack.enter_async_context(one))
                except TimeoutError as error:
                    if kind == "ours":
                        raise
                    results.note(kind, f"does not start: {error}")
            await _rounds(proxies, load, rounds, rng, results)
        await _sizes(names, load, folder, results)
        await _ours(load, rounds, folder, results)
        if "aiohttp" in names:
            await _floor(load, rounds, folder, results)


async def _rounds(
    proxies: list[Running],
    load: Load,
    rounds: int,
    rng: random.Random,
    results: Results,
) -> None:
    kinds: tuple[Scenario, ...] = (scenarios.tokens, scenarios.small, scenarios.crowd)
    for number in range(rounds):
        for scenario in kinds:
            for proxy in rng.sample(proxies, len(proxies)):
                try:
                    figures = await scenario(proxy, load, random.Random(number))  # noqa: S311
                except (TimeoutError, ConnectionError) as error:
                    if proxy.name in {"direct", "ours"}:
                        raise
                    results.note(proxy.name, f"{_name(scenario)}: {error!r}")
                    continue
                results.add(proxy.name, figures)
                _say(proxy.name, number, figures)


def _name(scenario: Scenario) -> str:
    return getattr(scenario, "__name__", "scenario")


async def _sizes(
    names: Sequence[str], load: Load, folder: Path, results: Results
) -> None:
    """Measure memory, each time of a new process."""
    for name in [name for name in names if name in {"ours", "nginx", "aiohttp"}]:
        sizes: list[Callable[[Running], Awaitable[Figures]]] = [
            partial(scenarios.open_streams, count=count) for count in load.open_streams
        ]
        if name != "aiohttp":  # it keeps uploads in memory
            sizes.append(partial(scenarios.large, load=load))
        for number, scenario in enumerate(sizes):
            figures = await alone(name, folder / f"{name}-{number}", scenario)
            results.add(name, figures)
            _say(name, 0, figures)


async def alone(
    name: str, folder: Path, scenario: Callable[[Running], Awaitable[Figures]]
) -> Figures:
    """Measure one proxy with an upstream of its own."""
    port = free_port()
    upstream = process(upstream_command(port), folder / "upstream")
    async with upstream, running(name, port, folder / "proxy") as proxy:
        return await scenario(proxy)


async def _ours(load: Load, rounds: int, folder: Path, results: Results) -> None:
    """Measure what only this proxy does."""
    for number in range(rounds):
        own = folder / f"own-{number}"
        for measure_own in (scenarios.asleep, scenarios.ready, keyed):
            figures = await measure_own(own, load)
            results.add("ours", figures)
            _say("ours", number, figures)


async def _floor(load: Load, rounds: int, folder: Path, results: Results) -> None:
    """Measure what aiohttp's server costs by itself."""
    for number in range(rounds):
        scenario = partial(scenarios.floor, load=load)
        figures = await alone("aiohttp", folder / f"floor-{number}", scenario)
        results.add("aiohttp", figures)
        _say("aiohttp", number, figures)


async def soak(load: Load, results: Results) -> None:
    """Load this proxy for long, and see its memory stay flat."""
    rng = random.Random(_SEED)  # noqa: S311 - the same order every time
    with tempfile.TemporaryDirectory(prefix="ollama-proxy-bench-") as name:
        scenario = partial(scenarios.soak, load=load, rng=rng)
        figures = await alone("ours", Path(name) / "soak", scenario)
    results.add("ours", figures)
    _say("ours", 0, figures)


def _say(name: str, number: int, figures: Figures) -> None:
    shown = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
    typer.echo(f"{number + 1} {name:8} {shown}")
