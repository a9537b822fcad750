"""``python -m bench``: measure, compare, write ``bench/results``."""

from typing import Annotated

import psutil
import typer
import uvloop

from bench.measure import measure, soak
from bench.proxies import KINDS, PROCESSORS, found
from bench.report import Results, summary, write
from bench.scenarios import SMOKE, Load


def main(
    *,
    smoke: Annotated[bool, typer.Option(help="little, for correctness only")] = False,
    rounds: Annotated[int, typer.Option(help="interleaved runs")] = 5,
    only: Annotated[str, typer.Option(help="proxies, with commas")] = ",".join(KINDS),
    soak_s: Annotated[
        float, typer.Option(help="only load ours so many seconds, and watch memory")
    ] = 0.0,
) -> None:
    """Measure the proxies of this machine beside each other."""
    if len(PROCESSORS) > 1:
        psutil.Process().cpu_affinity(PROCESSORS[:-1])
    results = Results()
    if soak_s:
        uvloop.run(soak(Load(soak_s=soak_s), results))
        return
    names, missing = found(only.split(","))
    for name in missing:
        results.note(name, f"`{KINDS[name].program}` is not on the PATH")
    load = SMOKE if smoke else Load()
    uvloop.run(measure(names, load, 1 if smoke else rounds, results))
    typer.echo(summary(results))
    if not smoke:
        write(results)


if __name__ == "__main__":
    typer.run(main)
