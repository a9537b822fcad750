"""Run the command line: ``ollama-proxy``, or ``python -m ollama_proxy``."""

import gc
import os
import sys

# The garbage collector can free none of the 50 000 objects of 700 modules, and looking
# at them took a seventh of the start-up time. `serve` sets its own threshold.
_COLLECT_AFTER = 50_000


def main() -> None:
    """Run the health check without loading the other commands, else the command."""
    match sys.argv[1:]:
        case ["healthcheck"] | ["healthcheck", "--config", _]:
            from ollama_proxy.cli.healthcheck import run  # noqa: PLC0415 - nothing else

            sys.exit(run(os.environ, *sys.argv[3:]))
    gc.set_threshold(_COLLECT_AFTER)
    from ollama_proxy.cli.main import main as run_command  # noqa: PLC0415 - slow to import

    run_command()


if __name__ == "__main__":
    main()
