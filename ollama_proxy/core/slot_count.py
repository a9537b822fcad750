"""Decide how many requests an instance answers at a time: its slots. Pure.

Ollama answers as many requests to one model at once as ``OLLAMA_NUM_PARALLEL`` says,
one without it (``envconfig/config.go``, v0.33.0-rc2), and lets the others wait where
no other instance can take them.
"""

from collections.abc import Mapping
from typing import Final

PARALLEL: Final = "OLLAMA_NUM_PARALLEL"
_OF_SEVERAL = 4
"""What a machine gets where several share the load, unless somebody says otherwise."""


def environment_of_instances(
    given: Mapping[str, str],
    *,
    slots: int | None,
    max_instances: int,
    inherited: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the variables of Ollama on machines that we make, besides our own.

    ``given`` and ``slots`` are what the settings say of an offer; ``inherited`` has the
    variables that its instances get anyway. Nothing is added for a lone instance.
    """
    if PARALLEL in given or PARALLEL in (inherited or {}):
        return dict(given)
    if slots is None and max_instances <= 1:
        return dict(given)
    return {**given, PARALLEL: str(slots or _OF_SEVERAL)}


def slots_of(
    stated: int | None,
    *,
    offers: int,
    max_instances: int,
    environment: Mapping[str, str] | None,
) -> int | None:
    """Return how many requests an instance of an offer gets at a time; None: any.

    ``offers`` and ``max_instances`` are those of its pool; ``environment`` has what its
    instances are given, None for a server that somebody else set up and that tells
    nothing. A lone instance has no limit: there is nowhere else to go.
    """
    if stated is not None:
        return stated
    if offers <= 1 and max_instances <= 1:
        return None
    text = (environment or {}).get(PARALLEL, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else 1
